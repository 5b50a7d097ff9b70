"""The model: what a database is, said as plainly as can be. Tables are sets of rows; a query tries every combination.

Responsible for: `Shape` (what a table allows), `State` (all rows at one moment), `Query` (what a subscription returns).
Not responsible for: anything fast. It shares nothing with `stdb.datastore` and `stdb.sql` but the codec of rows.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from operator import eq, gt, lt, ne
from typing import Any, NamedTuple, TypeAlias

from stdb.sats import bsatn
from stdb.schema.model import Access, TableDef

__all__ = ["Condition", "Query", "Row", "Shape", "State"]

Row: TypeAlias = tuple[Any, ...]
State: TypeAlias = Mapping[str, frozenset[bytes]]
"""All rows at one moment, by the name of their table."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"=": eq, "<>": ne, "<": lt, ">": gt}


class Shape:
    """What the model knows of a table."""

    def __init__(self, definition: TableDef, owner_column: int | None = None) -> None:
        self.definition = definition
        self.name = definition.name
        self.columns = [column.name for column in definition.columns]
        self.uniques = [unique.columns for unique in definition.uniques]
        self.is_public = definition.access is Access.PUBLIC
        self.is_event = definition.is_event
        self.owner_column = owner_column
        """Row-level security: others than the database's owner see the rows that have their identity in it."""
        self._decoded: dict[bytes, Row] = {}

    @cached_property
    def codec(self) -> bsatn.Codec:
        """What reads and writes rows."""
        return bsatn.codec(self.definition.row_type)

    def encode(self, values: Sequence[Any]) -> bytes:
        """Return a row."""
        return self.codec.encode(tuple(values))

    def decode(self, row: bytes) -> Row:
        """Return the values of a row."""
        known = self._decoded.get(row)
        if known is None:
            known = self._decoded[row] = self.codec.decode_exact(row)
        return known

    def key(self, columns: Sequence[int], row: bytes) -> Row:
        """Return what a row has in some columns; equal for what the database holds to be equal."""
        values = self.decode(row)
        return tuple(values[column] for column in columns)

    def conflicts(self, rows: "frozenset[bytes] | set[bytes]", new: bytes) -> bool:
        """Tell whether a row may not stand beside others."""
        return any(self.key(columns, row) == self.key(columns, new) for columns in self.uniques for row in rows)

    def is_consistent(self, rows: "frozenset[bytes] | set[bytes]") -> bool:
        """Tell whether no two rows agree in the columns of a unique constraint."""
        return all(len({self.key(columns, row) for row in rows}) == len(rows) for columns in self.uniques)

    def visible(self, rows: frozenset[bytes], identity: bytes, owner: bytes) -> list[bytes]:
        """Return the rows that somebody may see."""
        if self.owner_column is None or identity == owner:
            return list(rows)
        return [row for row in rows if self.decode(row)[self.owner_column] == identity]


class Condition(NamedTuple):
    """A column compared with a value; `literal` is how SQL writes it."""

    relation: int
    column: int
    operator: str
    value: Any
    literal: str


class Query(NamedTuple):
    """A query of the subscription language: rows of the first of `shapes`, which are joined in the columns `on`."""

    text: str
    shapes: tuple[Shape, ...]
    on: tuple[int, ...] = ()
    conditions: tuple[Condition, ...] = ()
    is_any: bool = False
    """The conditions are joined by OR."""
    own_column: int | None = None
    """Of a view: shows the rows that have the caller in this column."""

    @property
    def table(self) -> str:
        """The name that its rows come under."""
        return self.text.split(" FROM ")[1].split()[0]

    @property
    def is_allowed_to_all(self) -> bool:
        """Tell whether others than the owner may ask it."""
        return all(shape.is_public for shape in self.shapes)

    def evaluate(self, state: State, identity: bytes, owner: bytes) -> Counter[bytes]:
        """Return the bag of rows."""
        relations = [shape.visible(state[shape.name], identity, owner) for shape in self.shapes]
        if self.own_column is not None:
            relations[0] = [row for row in state[self.shapes[0].name] if self._is_own(row, identity)]
        found: Counter[bytes] = Counter()
        for rows in product(*relations):
            values = [shape.decode(row) for shape, row in zip(self.shapes, rows, strict=True)]
            if len({row[column] for row, column in zip(values, self.on, strict=False)}) <= 1 and self._passes(values):
                found[rows[0]] += 1
        return found

    def _is_own(self, row: bytes, identity: bytes) -> bool:
        assert self.own_column is not None
        return bool(self.shapes[0].decode(row)[self.own_column] == identity)

    def _passes(self, values: Sequence[Row]) -> bool:
        outcomes = (
            _OPERATORS[each.operator](values[each.relation][each.column], each.value) for each in self.conditions
        )
        return not self.conditions or (any(outcomes) if self.is_any else all(outcomes))
