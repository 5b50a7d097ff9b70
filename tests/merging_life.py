"""A database of many kinds of keys that lives at random and remembers every state it was in."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.datastore.records import encode
from stdb.datastore.table import Table
from stdb.sats.types import (
    BOOL,
    BYTES,
    F64,
    I64,
    I128,
    IDENTITY,
    STRING,
    U8,
    U32,
    U64,
    Element,
    Product,
    option,
)
from stdb.schema.model import ColumnDef
from tests.datastore_samples import CONTEXT, make_module, make_table, row, state

PAIR = Product((Element("a", U32), Element("b", STRING)))
KEYS: dict[str, tuple[Any, list[Any]]] = {
    "small": (U8, [0, 1, 2, 100, 255]),
    "wide": (U64, [0, 5, 2**63 - 1, 2**63, 2**64 - 1]),
    "signed": (I64, [-(2**63), -1, 0, 1, 2**63 - 1]),
    "huge": (I128, [-(2**127), -(2**63) - 1, 0, 2**63, 2**127 - 1]),
    "text": (STRING, ["", "a", "a\0b", "é", "x" * 300]),
    "blob": (BYTES, [b"", b"\0", b"b", b"i5;", b"y" * 300]),
    "person": (IDENTITY, [bytes(32), bytes([1]) * 32, bytes(range(32))]),
    "flag": (BOOL, [False, True]),
    "real": (F64, [0.0, -1.5, 1e300, float("inf")]),
    "maybe": (option(STRING), [None, "", "m"]),
    "pair": (PAIR, [(0, ""), (0, "("), (1, "s0:")]),
}
"""Primary keys by the name of their table."""
VALUES = ["", "v", "w", "u" * 250, "t" * 255, "long " * 100]
TABLES = (
    *(make_table(name, {"k": type_, "v": STRING}, key="k", btree=("v",)) for name, (type_, _) in KEYS.items()),
    make_table("bare", {"v": STRING}),
    make_table("pairs", {"v": STRING, "n": U32}, btree=("n",)),
    make_table("unit", {}),
    make_table("auto", {"id": U64, "v": STRING}, key="id", unique=("v",), auto=("id",)),
    make_table("event", {"id": U64, "v": STRING}, event=True),
)
_LATER = make_table("later", {"id": U32, "v": STRING}, key="id", auto=("id",))

Operation = tuple[str, int, int]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from([*(table.name for table in TABLES), "later", "CREATE", "DROP", "CLEAR", "WIDEN"]),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=6,
)


class Life:
    """Commits transactions; `states` are those after 0, 1, 2 … of them."""

    def __init__(self) -> None:
        self.datastore = Datastore()
        self.states = [state(self.datastore)]

    def create(self) -> tuple[bytes, Delta]:
        """Create the tables."""
        transaction = self.datastore.begin(0)
        self.datastore.create_tables(make_module(*TABLES))
        return self._committed(transaction.commit())

    def step(self, operations: Sequence[Operation]) -> list[tuple[bytes, Delta]]:
        """Run a transaction; return its record and delta, or nothing when it had no effect."""
        transaction = self.datastore.begin(0)
        for name, key, value in operations:
            self._operate(name, key, value)
        delta = transaction.commit()
        return [] if delta is None else [self._committed(delta)]

    def restart(self, datastore: Datastore) -> None:
        """Go on with a recovered database, which must be in the state after one of the prefixes."""
        self.check(datastore)
        self.datastore = datastore
        del self.states[datastore.next_offset + 1 :]

    def check(self, datastore: Datastore) -> None:
        """Compare with the state that was."""
        assert state(datastore) == self.states[datastore.next_offset]
        datastore.verify()

    def _operate(self, name: str, key: int, value: int) -> None:
        later = self.datastore.find_table("later")
        if name == "CREATE":
            if later is None:
                self.datastore.catalog.create_table(_LATER)
        elif name == "DROP":
            if later is not None:
                self.datastore.catalog.drop_table(later)
        elif name == "WIDEN":
            if later is not None and len(later.schema.definition.columns) < 5:
                column = f"c{len(later.schema.definition.columns)}"
                added = ColumnDef(column, column, U8, default=b"\x07")
                self.datastore.catalog.add_columns(later, (added,))
        elif name == "CLEAR":
            self.datastore.table(TABLES[(6 * key + value) % len(TABLES)].name).clear()
        else:
            table = self.datastore.find_table(name)
            if table is not None:
                self._write(table, key, value)

    def _write(self, table: Table, key: int, value: int) -> None:
        name, text = table.schema.name, VALUES[value]
        if name in KEYS:
            keys = KEYS[name][1]
            new = row(table, keys[key % len(keys)], text)
            place = table.key_of(new)
            if value == 5:
                table.delete_key(place)
            elif place in table.stored:
                table.update_key(place, new)
            else:
                table.insert(new)
        elif name == "auto":
            rows = sorted(table.rows())
            if key < 3 and rows:
                table.delete(rows[key % len(rows)])
            else:
                table.insert(row(table, 0, f"{text} {len(self.states)} {len(rows)} {key}"))
        else:
            fields = {"bare": (text,), "pairs": (text, key), "unit": (), "event": (key, text)}
            new = row(table, *fields.get(name, (0, text, *[key] * (len(table.schema.definition.columns) - 2))))
            if not table.delete(new):
                table.insert(new)

    def _committed(self, delta: Delta | None) -> tuple[bytes, Delta]:
        assert delta is not None
        self.states.append(state(self.datastore))
        return encode(delta, CONTEXT), delta
