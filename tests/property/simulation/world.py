"""The world of one seed: tables, the module over them, queries that clients hold.

Responsible for: `World`, everything about the schema that chance decides.
Not responsible for: what reducers do (`operations`), who calls them (`script`).

Some tables are always there, so that effects can be counted: `journal` (a row per acknowledged call), `presence` (who
came and went), `alarm` and `rung` (schedules and what they did), `flash` (events). The others are drawn.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple

from stdb.sats.special import Identity
from stdb.sats.types import (
    BOOL,
    BYTES,
    F64,
    I32,
    I64,
    IDENTITY,
    SCHEDULE_AT,
    STRING,
    U8,
    U32,
    U64,
    AlgebraicType,
    option,
)
from stdb.schema.model import IndexAlgorithm, IndexDef, SequenceDef, TableDef, UniqueDef
from stdb.schema.system_tables import SYSTEM_TABLES
from stdb.testing.modules import table
from tests.property.simulation.model import Condition, Query, Shape

__all__ = ["NAMES", "OWNER", "PEOPLE", "World"]

NAMES = ("owner", "ann", "bob", "cleo")
"""Subjects of the tokens of everybody who is known; the first owns the database."""
OWNER, *PEOPLE = (Identity.derive("localhost", name).wire for name in NAMES)


class _Kind(NamedTuple):
    type: AlgebraicType
    values: tuple[Any, ...]
    literal: Callable[[Any], str] | None
    """How SQL writes a value; None: it is not compared."""


def _quoted(value: str) -> str:
    return f"'{value}'"


def _hex(value: bytes) -> str:
    return f"0x{value[::-1].hex()}"


_NUMBERS = tuple(range(6))
_IDENTITY = _Kind(IDENTITY, (OWNER, *PEOPLE), _hex)
_KINDS = (
    _Kind(U8, _NUMBERS, str),
    _Kind(U64, _NUMBERS, str),
    _Kind(I32, (-2, -1, 0, 1, 2), str),
    _Kind(STRING, ("", "a", "b", "ab"), _quoted),
    _Kind(BOOL, (False, True), lambda value: str(value).lower()),
    _Kind(F64, (0.0, -0.0, 1.5, -2.25), str),
    _IDENTITY,
    _Kind(option(U32), (None, 0, 1), None),
    _Kind(BYTES, (b"", b"\0", b"xy"), None),
)
_AUTO_KINDS = (U64, U32, I64)
_LINK = _Kind(U8, (0, 1, 2), str)

JOURNAL = table("journal", {"id": U64, "who": IDENTITY, "tag": U64}, primary_key="id", auto_inc=True)
PRESENCE = table(
    "presence", {"id": U64, "who": IDENTITY, "connection": U64, "kind": U8}, primary_key="id", auto_inc=True
)
ALARM = table(
    "alarm",
    {"scheduled_id": U64, "scheduled_at": SCHEDULE_AT, "tag": U64, "mode": U8},
    primary_key="scheduled_id",
    auto_inc=True,
    scheduled="ring",
)
RUNG = table("rung", {"id": U64, "alarm": U64, "tag": U64, "at": I64}, primary_key="id", auto_inc=True)
FLASH = table("flash", {"what": U64}, event=True)
FIXED = (JOURNAL, PRESENCE, ALARM, RUNG, FLASH)


class World:
    """Tables and queries of one seed."""

    def __init__(self, random: Random) -> None:
        drawn = [self._draw_table(random, f"t{number}") for number in range(random.randint(2, 3))]
        self.kinds = {shape.name: kinds for shape, kinds in drawn}
        """The columns of the drawn tables."""
        self.drawn = [shape for shape, _ in drawn]
        self.shapes = {shape.name: shape for shape in (*self.drawn, *map(Shape, FIXED))}
        """What the module declares, by name."""
        self.rules = [
            f"SELECT * FROM {each.name} WHERE {each.columns[each.owner_column]} = :sender"
            for each in self.drawn
            if each.owner_column is not None
        ]
        self._client_shape = Shape(next(each for _, each in SYSTEM_TABLES if each.name == "st_client"))
        self._client_shape.is_public = True
        self.shown = {**self.shapes, "st_client": self._client_shape, "mine": self.shapes["journal"]}
        """What clients may see rows of, by name."""
        self.queries = self._draw_queries(random)
        restricted = {shape.name for shape in self.drawn if shape.owner_column is not None} | {"mine"}
        self.favourites = [each for each in self.queries if each.table in restricted and not each.conditions]
        """Queries that different people ask and that mean something else for each."""

    @property
    def tables(self) -> list[TableDef]:
        """The definitions of the module's tables."""
        return [shape.definition for shape in self.shapes.values()]

    def draw_row(self, random: Random, shape: Shape) -> list[Any]:
        """Return the values of a row of a drawn table; an auto-increment column asks for a value, mostly."""
        values = [random.choice(kind.values) for kind in self.kinds[shape.name]]
        for sequence in shape.definition.sequences:
            values[sequence.column] = 0 if random.random() < 0.7 else random.choice((1, 2, 3, 4097, 4098, 9000))
        return values

    # ------------------------------------------------------------------ tables
    def _draw_table(self, random: Random, name: str) -> tuple[Shape, list[_Kind]]:
        has_key, is_public = random.random() < 0.7, random.random() < 0.8
        kinds = [random.choice(_KINDS[:4]), *random.choices(_KINDS, k=random.randint(1, 3)), _LINK]
        if random.random() < 0.4:
            kinds[1] = _IDENTITY
        is_auto = has_key and random.random() < 0.6
        if is_auto:
            kinds[0] = _Kind(random.choice(_AUTO_KINDS), (0,), str)
        definition = table(
            name,
            {f"c{place}": kind.type for place, kind in enumerate(kinds)},
            primary_key="c0" if has_key else None,
            auto_inc=is_auto,
            public=is_public,
        )
        definition = self._draw_indexes(random, definition, kinds)
        owners = [place for place, kind in enumerate(kinds) if kind.type is IDENTITY]
        owner_column = owners[0] if owners and is_public and random.random() < 0.7 else None
        return Shape(definition, owner_column), kinds

    def _draw_indexes(self, random: Random, definition: TableDef, kinds: list[_Kind]) -> TableDef:
        name, last = definition.name, len(kinds) - 1
        indexes = [*definition.indexes, IndexDef(f"{name}_link", "link", IndexAlgorithm.BTREE, (last,))]
        uniques, sequences = list(definition.uniques), list(definition.sequences)
        for number in range(random.randint(0, 2)):
            columns = tuple(sorted(random.sample(range(len(kinds)), k=random.randint(1, 2))))
            algorithm = random.choice((IndexAlgorithm.BTREE, IndexAlgorithm.HASH))
            if any(index.columns == columns for index in indexes):
                continue
            indexes.append(IndexDef(f"{name}_i{number}", f"i{number}", algorithm, columns))
            if random.random() < 0.4:
                uniques.append(UniqueDef(f"{name}_u{number}", columns))
        if not sequences and kinds[1].type is U64:
            sequences.append(SequenceDef(f"{name}_seq", 1))
        return replace(definition, indexes=tuple(indexes), uniques=tuple(uniques), sequences=tuple(sequences))

    # ------------------------------------------------------------------ queries
    def _draw_queries(self, random: Random) -> list[Query]:
        queries = [Query(f"SELECT * FROM {name}", (shape,)) for name, shape in self.shapes.items()]
        queries.append(Query("SELECT * FROM st_client", (self._client_shape,)))
        queries.append(Query("SELECT * FROM mine", (self.shapes["journal"],), own_column=1))
        for shape in self.drawn:
            queries += [self._draw_selection(random, shape) for _ in range(2)]
        queries += [self._draw_join(random) for _ in range(3)]
        return queries

    def _draw_selection(self, random: Random, shape: Shape) -> Query:
        conditions = tuple(self._draw_conditions(random, [shape]))
        is_any = random.random() < 0.5
        return Query(_text("*", [shape.name], "", conditions, is_any), (shape,), (), conditions, is_any)

    def _draw_join(self, random: Random) -> Query:
        shapes = random.choice(self.drawn), random.choice(self.drawn)
        on = len(shapes[0].columns) - 1, len(shapes[1].columns) - 1
        conditions = tuple(each for each in self._draw_conditions(random, shapes) if random.random() < 0.5)[:1]
        joined = f" JOIN {shapes[1].name} b ON a.c{on[0]} = b.c{on[1]}"
        text = _text("a.*", [f"{shapes[0].name} a"], joined, conditions, False, ("a.", "b."))
        return Query(text, shapes, on, conditions)

    def _draw_conditions(self, random: Random, shapes: "list[Shape] | tuple[Shape, ...]") -> list[Condition]:
        conditions = []
        for _ in range(random.randint(1, 2)):
            relation = random.randrange(len(shapes))
            kinds = self.kinds[shapes[relation].name]
            column = random.choice([place for place, kind in enumerate(kinds) if kind.literal is not None])
            kind = kinds[column]
            value = random.choice(kind.values if len(kind.values) > 1 else _NUMBERS)
            is_ordered = kind.type not in (BOOL, IDENTITY)
            operator = random.choice(("=", "=", "<>", "<", ">") if is_ordered else ("=", "<>"))
            assert kind.literal is not None
            conditions.append(Condition(relation, column, operator, value, kind.literal(value)))
        return conditions


def _text(
    what: str,
    tables: list[str],
    joined: str,
    conditions: tuple[Condition, ...],
    is_any: bool,
    prefixes: tuple[str, ...] = ("",),
) -> str:
    terms = [f"{prefixes[each.relation]}c{each.column} {each.operator} {each.literal}" for each in conditions]
    where = f" WHERE {(' OR ' if is_any else ' AND ').join(terms)}" if terms else ""
    return f"SELECT {what} FROM {tables[0]}{joined}{where}"
