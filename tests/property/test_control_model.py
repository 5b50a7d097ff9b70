"""The control store against a model in dicts: ownership holds under any order of changes, reopening included."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stdb.storage.control import Control, Database, NameInUseError, NameNotYoursError, NotYourDatabaseError

OWNERS = [bytes([number]) * 32 for number in range(1, 4)]
IDENTITIES = [bytes([number]) + bytes(31) for number in range(10, 14)]
NAMES = ["a", "b", "c", "d"]
REFUSALS = (NameInUseError, NameNotYoursError, NotYourDatabaseError)

owners, identities, names = map(st.sampled_from, (OWNERS, IDENTITIES, NAMES))


class ControlMachine(RuleBasedStateMachine):
    """Rules change both; invariants compare them."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = str(Path(self.directory.name) / "control.sqlite")
        self.control = Control(self.path)
        self.owner_of: dict[bytes, bytes] = {}
        self.living: set[bytes] = set()
        self.identity_of: dict[str, bytes] = {}
        self.name_owner: dict[str, bytes] = {}

    def may_use(self, caller: bytes, identity: bytes, name: str) -> bool:
        return self.identity_of.get(name, identity) == identity and self.name_owner.get(name, caller) == caller

    @rule(owner=owners, identity=identities, name=st.none() | names)
    def create(self, owner: bytes, identity: bytes, name: str | None) -> None:
        if identity in self.living:
            return
        allowed = self.owner_of.get(identity, owner) == owner
        allowed = allowed and (name is None or self.may_use(owner, identity, name))
        database = Database(identity, identity[:16], owner, "Python", bytes(32), 0)
        try:
            self.control.create(database, b"program", name)
        except REFUSALS:
            assert not allowed
            return
        assert allowed
        self.owner_of[identity] = owner
        self.living.add(identity)
        if name is not None:
            self.identity_of[name] = identity
            self.name_owner[name] = owner

    @rule(identity=identities)
    def delete(self, identity: bytes) -> None:
        self.control.delete(identity)
        self.living.discard(identity)

    @rule(caller=owners, identity=identities, name=names)
    def add_name(self, caller: bytes, identity: bytes, name: str) -> None:
        owns = identity in self.living and self.owner_of[identity] == caller
        allowed = owns and name not in self.identity_of and self.name_owner.get(name, caller) == caller
        try:
            self.control.add_name(name, identity, caller)
        except REFUSALS:
            assert not allowed
            return
        assert allowed
        self.identity_of[name] = identity
        self.name_owner.setdefault(name, caller)

    @rule(caller=owners, identity=identities, wanted=st.lists(names, max_size=4))
    def set_names(self, caller: bytes, identity: bytes, wanted: list[str]) -> None:
        owns = identity in self.living and self.owner_of[identity] == caller
        allowed = owns and all(self.may_use(caller, identity, name) for name in wanted)
        try:
            self.control.set_names(identity, wanted, caller)
        except REFUSALS:
            assert not allowed
            return
        assert allowed
        self.identity_of = {name: at for name, at in self.identity_of.items() if at != identity}
        for name in wanted:
            self.identity_of[name] = identity
            self.name_owner.setdefault(name, caller)

    @rule()
    def reopen(self) -> None:
        self.control.close()
        self.control = Control(self.path)

    @invariant()
    def both_agree(self) -> None:
        control = self.control
        assert {database.identity for database in control.databases()} == self.living
        assert {name: control.resolve(name) for name in NAMES} == {name: self.identity_of.get(name) for name in NAMES}
        assert {name: control.name_owner(name) for name in NAMES} == {name: self.name_owner.get(name) for name in NAMES}
        for owner in OWNERS:
            owned = {identity for identity in self.living if self.owner_of[identity] == owner}
            assert set(control.databases_of(owner)) == owned
        for identity in IDENTITIES:
            assert set(control.names(identity)) == {n for n, at in self.identity_of.items() if at == identity}
            assert (control.program(bytes(32)) is None) == (not self.living)

    def teardown(self) -> None:
        self.control.close()
        self.directory.cleanup()


TestControl = ControlMachine.TestCase
TestControl.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
