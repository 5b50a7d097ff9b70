"""Machines: a module called at random by several clients, its author's invariants checked after every step.

Responsible for: `state_machine`, which derives a hypothesis RuleBasedStateMachine from what a module declares.
Not responsible for: values of types (`strategies`), hosts (`test_host`).

Steps are calls of every public reducer and procedure, clients that come and go, time that passes, restarts and crashes.
A module that refuses (`SenderError`) is fine; one that breaks fails the test, wherever it broke: in a call, a view, a
schedule or an event. Clients subscribe to everything public; what they hold must be what the tables hold.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeAlias

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stdb.actors.refusals import ConnectRefused
from stdb.errors import ModuleFault, ReducerError
from stdb.sats.types import Element
from stdb.schema.model import Access, ModuleDef, ProcedureDef, ReducerDef, Visibility
from stdb.testing.async_host import Http, Start
from stdb.testing.programs import Subject, borrow_module, give_back_module, read_source
from stdb.testing.strategies import values
from stdb.testing.test_host import Client, TestHost
from stdb.testing.twin import Function, Twin, twin_of

__all__ = ["ModuleMachine", "state_machine"]

Check: TypeAlias = Callable[[TestHost], object]
Arguments: TypeAlias = Mapping[Callable[..., Any] | str, Mapping[str, st.SearchStrategy[Any]]]
_KNOWN_MAX = 20
_SECONDS_MAX = 3600
_LOSING_MAX = 3


class ModuleMachine(RuleBasedStateMachine):
    """A host and its clients; subclasses, made by `state_machine`, have the rules. Add some of your own.

    `run_state_machine_as_test(Machine)` or `TestMine = Machine.TestCase` runs it.
    """

    make_host: ClassVar[Callable[[], TestHost]]
    checks: ClassVar[tuple[Check, ...]] = ()
    arguments: ClassVar[Mapping[str, Mapping[str, st.SearchStrategy[Any]]]] = {}
    names: ClassVar[tuple[str, ...]] = ()
    refusals: ClassVar[tuple[type[BaseException], ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.host = type(self).make_host()
        self.clients: dict[str, Client] = {}
        """Who is connected."""
        self._lines_seen = 0

    # ------------------------------------------------------------------ steps
    def call(self, function: Function, who: str, data: st.DataObject) -> None:
        """Call a reducer or procedure as somebody, with arguments that are drawn."""
        given = self.arguments.get(function.name, {})
        drawn: dict[str, Any] = {}
        for element, shape in zip(function.parameters.elements, function.shape.shapes, strict=True):
            name = str(element.name)
            strategy = given.get(name)
            if strategy is None:
                strategy = self._values(element, shape, function)
            drawn[name] = data.draw(strategy, label=f"{function.name}.{name}")
        client = self._client(who)
        if client is None:
            return
        said = f"{who}: {function.name}({', '.join(f'{name}={value!r}' for name, value in drawn.items())})"
        self._do(said, lambda: client.call(function.name, **drawn))

    def meanwhile(self, what: str, who: str, data: st.DataObject) -> None:
        """Do what is no call: one rule for all of it, so that most steps are calls."""
        if what in ("come", "go"):
            getattr(self, what)(who)
        elif what == "pass_time":
            self.pass_time(data.draw(st.integers(0, _SECONDS_MAX), label="seconds"))
        elif what == "crash":
            self.crash(data.draw(st.integers(0, _LOSING_MAX), label="transactions that are lost"))
        else:
            self.restart()

    def come(self, who: str) -> None:
        """Connect somebody who is not connected."""
        self._client(who)

    def go(self, who: str) -> None:
        """Disconnect somebody who is connected."""
        if who in self.clients:
            self._do(f"{who} leaves", self.clients.pop(who).disconnect)

    def pass_time(self, seconds: int) -> None:
        """Let time pass."""
        self._do(f"{seconds} s pass", lambda: self.host.advance(seconds))

    def restart(self) -> None:
        """Restart the host cleanly."""
        self.clients.clear()
        self._do("restart", self.host.restart)

    def crash(self, losing: int) -> None:
        """Crash the host; some transactions had not reached the disk."""
        self.clients.clear()
        lost = min(losing, self.host._look().transaction_count - 1)
        self._do(f"crash, {lost} transactions are lost", lambda: self.host.crash(losing=lost))

    # ------------------------------------------------------------------ checks
    @invariant()
    def what_the_author_says(self) -> None:
        """Check what the author says always holds."""
        for check in self.checks:
            check(self.host)

    @invariant()
    def nothing_broke_unnoticed(self) -> None:
        """Check that nothing of the module broke that no caller was told of."""
        lines = self.host.log
        new, self._lines_seen = lines[self._lines_seen :], len(lines)
        broken = [line for line in new if line.level == "Panic"]
        assert not broken, f"{broken[0].function} broke:\n{broken[0].message}"

    @invariant()
    def clients_hold_what_there_is(self) -> None:
        """Check that every client holds all rows of the public tables, unless rules hide some."""
        running = self.host._look()
        definition: ModuleDef = running.definition
        datastore = running.module.datastore
        if definition.row_level_security or datastore is None:
            return
        for table in definition.tables:
            if table.access is Access.PUBLIC and not table.is_event:
                stored = set(datastore.table(table.name).rows())
                for who, client in self.clients.items():
                    held = client._connection.cache.bytes_of(table.name)
                    assert held == stored, f"{who} holds other rows of {table.name} than there are"

    def teardown(self) -> None:
        """Close the host."""
        self.host.close()

    # ------------------------------------------------------------------ inside
    def _do(self, said: str, step: Callable[[], object]) -> bool:
        """Do a step; tell whether it went well. A refusal is fine, its lines in the log too."""
        note(said)
        try:
            step()
        except (ReducerError, ConnectRefused) as error:
            note(f"    refused: {error}")
        except ModuleFault as error:
            if not isinstance(error.__cause__, self.refusals):
                raise
            note(f"    refused: {error.__cause__!r}")
            self._lines_seen = len(self.host.log)
        else:
            return True
        return False

    def _client(self, who: str) -> Client | None:
        """Return somebody's connection, made when there is none; None when the module does not want it."""
        if who not in self.clients and self._do(f"{who} connects", lambda: self._connect(who)):
            self.clients[who].subscribe(*_public(self.host._look().definition))
        return self.clients.get(who)

    def _connect(self, who: str) -> None:
        self.clients[who] = self.host.connect(who)

    def _values(self, element: Element, shape: Any, function: Function) -> st.SearchStrategy[Any]:
        """Return what an argument may be: any value, or one by which there are rows to find."""
        people = [self.host.identity(name).wire for name in self.names]
        any_value = values(element.type, shape, function.params.typespace, people)
        known = self._known(element)
        return st.sampled_from(known) | any_value if known else any_value

    def _known(self, element: Element) -> list[Any]:
        """Return values of this type from columns that have an index."""
        found: dict[str, Any] = {}
        for table in self.host._look().definition.tables:
            indexed = {index.columns[0] for index in table.indexes if len(index.columns) == 1}
            for position in sorted(indexed):
                if table.columns[position].type == element.type:
                    name = table.columns[position].name
                    for row in self.host.table(table.name).all()[:_KNOWN_MAX]:
                        value = getattr(row, name)
                        found[repr(value)] = value
        return list(found.values())[:_KNOWN_MAX]


def state_machine(
    module: Subject,
    *,
    invariants: Iterable[Check] = (),
    arguments: Arguments | None = None,
    clients: Iterable[str] = ("alice", "bob", "carol"),
    refusals: Iterable[type[BaseException]] = (),
    restarts: bool = True,
    start: Start = None,
    seed: int = 0,
    http: Http = None,
) -> type[ModuleMachine]:
    """Return a machine that calls a module at random: `TestChat = state_machine(chat, …).TestCase`.

    Args:
        module: As for `TestHost`.
        invariants: Functions that are given the host after every step and assert what always holds.
        arguments: Strategies that take the place of those derived from types: by function, by parameter.
        clients: Names of the clients that call.
        refusals: Exceptions that count as refusals when a function lets them out, besides SenderError.
        restarts: Restart and crash in between; a crash may lose the last transactions, which nobody was promised.
        start: As for `TestHost`.
        seed: As for `TestHost`.
        http: As for `TestHost`.
    """
    source = read_source(module)
    loaded = borrow_module(source.program)
    twin = twin_of(loaded.python, source.program, source.python)
    definition, names = loaded.definition, tuple(clients)
    overrides = {twin.function(key).name: strategies for key, strategies in (arguments or {}).items()}
    _check_overrides(overrides, twin)
    members: dict[str, Any] = {
        "make_host": partial(TestHost, module, start=start, seed=seed, http=http),
        "checks": tuple(invariants),
        "arguments": overrides,
        "names": names,
        "refusals": tuple(refusals),
        "__module__": __name__,
    }
    who = st.sampled_from(names)
    for name in _callable(definition):
        members[f"call_{name}"] = _call_rule(twin.function(name), who)
    waits = bool(definition.procedures) or any(table.schedule is not None for table in definition.tables)
    what = ["come", "go", "come", "go", *(["pass_time"] if waits else ()), *(["restart", "crash"] if restarts else ())]
    members["meanwhile_"] = _meanwhile_rule(st.sampled_from(what), who)
    give_back_module(source.program, loaded)
    return type("Machine", (ModuleMachine,), members)


def _call_rule(function: Function, who: st.SearchStrategy[str]) -> Any:
    def step(self: ModuleMachine, who: str, data: st.DataObject) -> None:
        self.call(function, who, data)

    return rule(who=who, data=st.data())(step)


def _meanwhile_rule(what: st.SearchStrategy[str], who: st.SearchStrategy[str]) -> Any:
    def step(self: ModuleMachine, what: str, who: str, data: st.DataObject) -> None:
        self.meanwhile(what, who, data)

    return rule(what=what, who=who, data=st.data())(step)


def _callable(definition: ModuleDef) -> list[str]:
    """Return the names of the functions that every client may call."""
    reducers = [each for each in definition.reducers if each.lifecycle is None]
    functions: list[ReducerDef | ProcedureDef] = [*reducers, *definition.procedures]
    return [each.name for each in functions if each.visibility is not Visibility.PRIVATE]


def _public(definition: ModuleDef) -> list[str]:
    """Return the names of what every client may subscribe to."""
    tables = [table.name for table in definition.tables if table.access is Access.PUBLIC]
    return tables + [view.name for view in definition.views if view.is_public and not view.params.elements]


def _check_overrides(overrides: Mapping[str, Mapping[str, Any]], twin: Twin) -> None:
    for name, strategies in overrides.items():
        known = [str(element.name) for element in twin.function(name).parameters.elements]
        for parameter in strategies:
            if parameter not in known:
                raise TypeError(
                    f"arguments: {name} has no parameter {parameter!r}; it has {', '.join(known) or 'none'}"
                )
