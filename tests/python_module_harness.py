"""A database around a Python module, in memory: what the actors do, without them."""

from textwrap import dedent
from typing import Any

from stdb.datastore.datastore import Datastore
from stdb.datastore.transaction import Delta, Transaction
from stdb.modules.protocol import ReducerCall
from stdb.modules.python import loader
from stdb.modules.python.module import PythonModule
from stdb.sats import bsatn

ALICE = bytes(range(32))
BOB = bytes(range(100, 132))
DATABASE = bytes([7]) * 32


class Lines(list[dict[str, Any]]):
    """A log that keeps its lines."""

    def write(self, level: str, message: str, **members: Any) -> None:
        """Append a line, members that say nothing left out."""
        known = {name: value for name, value in members.items() if value is not None}
        self.append({"level": level, "message": message, **known})

    @property
    def messages(self) -> list[str]:
        """The messages alone."""
        return [line["message"] for line in self]


def load(source: str | dict[str, str], name: str | None = None) -> PythonModule:
    """Load a module of source text: one file, `chat.py`, or several by path."""
    files = {"chat.py": source} if isinstance(source, str) else source
    return loader.load({path: dedent(text).encode() for path, text in files.items()}, name)


class Running:
    """A module attached to a database of its own."""

    def __init__(self, source: str | dict[str, str] | PythonModule) -> None:
        self.module = source if isinstance(source, PythonModule) else load(source)
        self.store = Datastore()
        self.log = Lines()
        self.clock_us = 1_700_000_000_000_000
        transaction = self.store.begin(0)
        self.store.create_tables(self.module.definition)
        self.module.attach(self.store, DATABASE, self.log)
        transaction.commit()

    def call(
        self, name: str, *args: Any, sender: bytes = ALICE, connection_id: bytes | None = bytes(16)
    ) -> Delta | None:
        """Call a reducer as one transaction with plain values; roll back and raise what it raises."""
        transaction = self.store.begin(self.clock_us)
        try:
            self.run(transaction, name, self.encode(name, args), sender, connection_id)
            return transaction.commit()
        finally:
            if transaction.is_open:
                transaction.rollback()
            self.store.verify()

    def run(
        self,
        transaction: Transaction,
        name: str,
        args: bytes,
        sender: bytes = ALICE,
        connection_id: bytes | None = None,
        credentials: str | None = None,
    ) -> None:
        """Call a reducer within a transaction."""
        self.clock_us += 1
        names = [reducer.name for reducer in self.module.definition.reducers]
        entry = self.module.reducer(names.index(name))
        entry(ReducerCall(sender, connection_id, self.clock_us, transaction, credentials), args)

    def encode(self, name: str, args: tuple[Any, ...]) -> bytes:
        """Return arguments as a client sends them."""
        (reducer,) = (each for each in self.module.definition.reducers if each.name == name)
        return bsatn.codec(reducer.params, self.module.definition.typespace).encode(args)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table as plain values, sorted by their bytes."""
        stored = self.store.table(table)
        assert stored is not None, table
        return [stored.schema.codec.decode_exact(row) for row in sorted(stored.rows())]

    def said(self, source: str) -> Any:
        """Run lines of code as a reducer `probe` would and return what they put into `out`; see PROBE."""
        transaction = self.store.begin(self.clock_us)
        try:
            self.run(transaction, "probe", self.encode("probe", (dedent(source),)))
            transaction.commit()
        finally:
            if transaction.is_open:
                transaction.rollback()
            self.store.verify()
        namespace = self.module._version.namespaces()
        (own,) = (each for name, each in namespace.items() if "probe" in each)
        return own["answers"][-1]


PROBE = """
answers = []

@reducer(private=True)
def probe(ctx: ReducerContext, source: str) -> None:
    out = []
    exec(source, {**globals(), "ctx": ctx, "out": out})
    answers.append(out[0] if len(out) == 1 else out)
"""
"""Put behind a module's source: a reducer that runs any code, for `Running.said`."""
