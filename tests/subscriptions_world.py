"""A database with a few small tables, transactions over it, and what its clients see: for the subscription tests."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.datastore.table import Table
from stdb.sats import types as t
from stdb.schema.model import (
    Access,
    ColumnDef,
    IndexAlgorithm,
    IndexDef,
    ModuleDef,
    RowLevelSecurityDef,
    TableDef,
    UniqueDef,
)
from stdb.sql.rules import replace_rules
from stdb.subscriptions import ClientUpdate, Evaluation, Fragment, Registry, SubscriptionActor

Option = TypeVar("Option")
OWNER, ALICE, BOB = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)

_ITEM = {"id": t.U32, "owner": t.IDENTITY, "kind": t.U32, "size": t.F64}
_TABLES: dict[str, dict[str, Any]] = {
    "item": {"columns": _ITEM, "primary_key": 0, "indexes": ((0,), (1,), (2, 0), (1, 2))},
    "bag": {"columns": {"a": t.U8, "b": t.U8}},
    "secret": {"columns": {"a": t.U8, "b": t.U8}, "access": Access.PRIVATE},
    "ping": {"columns": {"a": t.U8, "b": t.U8}, "is_event": True, "indexes": ((0,),)},
}
JOINED: dict[str, dict[str, Any]] = {
    **_TABLES,
    "part": {"columns": {"item": t.U32, "slot": t.U8, "kind": t.U32}, "indexes": ((0,), (1, 0), (2,))},
    "player": {"columns": {"who": t.IDENTITY, "kind": t.U32}, "primary_key": 0, "indexes": ((0,), (1,))},
    "link": {"columns": {"a": t.U8, "b": t.U8}, "indexes": ((0,), (1, 0))},
}
"""The same tables with some more to join them with: with and without unique keys, on indexes of one and two columns."""


def _table_def(name: str, document: dict[str, Any]) -> TableDef:
    primary_key = document.get("primary_key")
    indexes = tuple(
        IndexDef(f"{name}_{place}", None, IndexAlgorithm.BTREE, columns)
        for place, columns in enumerate(document.get("indexes", ()))
    )
    return TableDef(
        name,
        name,
        0,
        tuple(ColumnDef(column, column, type_) for column, type_ in document["columns"].items()),
        primary_key,
        indexes,
        () if primary_key is None else (UniqueDef(f"{name}_key", (primary_key,)),),
        access=document.get("access", Access.PUBLIC),
        is_event=document.get("is_event", False),
    )


class World:
    """A database, its registry, and transactions over it."""

    def __init__(self, tables: dict[str, dict[str, Any]] = _TABLES, rules: Iterable[str] = (), **options: Any) -> None:
        self.datastore = Datastore()
        transaction = self.datastore.begin(0)
        definitions = tuple(_table_def(name, document) for name, document in tables.items())
        self.datastore.create_tables(ModuleDef(t.Typespace.EMPTY, definitions))
        replace_rules(self.datastore, map(RowLevelSecurityDef, rules))
        transaction.commit()
        self.registry = Registry(self.datastore, OWNER, **options)

    def table(self, name: str) -> Table:
        return self.datastore.table(name)

    def encode(self, name: str, *values: Any) -> bytes:
        encoded: bytes = self.table(name).schema.codec.encode(values)
        return encoded

    def client(self, identity: bytes = ALICE, connection: int = 1) -> SubscriptionActor:
        return SubscriptionActor(self.registry, identity, connection.to_bytes(16, "little"))

    def transact(self, change: Callable[["World"], None]) -> Delta | None:
        """Run a change in a transaction; None when it changed nothing."""
        transaction = self.datastore.begin(0)
        change(self)
        return transaction.commit()

    def insert(self, name: str, *rows: tuple[Any, ...]) -> Delta | None:
        return self.change({name: rows}, {})

    def delete(self, name: str, *rows: tuple[Any, ...]) -> Delta | None:
        return self.change({}, {name: rows})

    def change(
        self, inserts: Mapping[str, Iterable[tuple[Any, ...]]], deletes: Mapping[str, Iterable[tuple[Any, ...]]]
    ) -> Delta | None:
        """Take out and put in rows of several tables in one transaction."""

        def change(world: "World") -> None:
            for name, rows in deletes.items():
                for row in rows:
                    assert world.table(name).delete(world.encode(name, *row)), (name, row)
            for name, rows in inserts.items():
                for row in rows:
                    world.table(name).insert(world.encode(name, *row))

        return self.transact(change)

    def tell(self, delta: Delta | None, caller: SubscriptionActor | None = None) -> Evaluation:
        assert delta is not None
        return self.registry.evaluate(delta, caller)


class Choices:
    """Choices made by random bytes: one draw of a property test for very many. Used up, it makes the first ones."""

    def __init__(self, drawn: bytes) -> None:
        self._number = int.from_bytes(drawn, "little")

    def __bool__(self) -> bool:
        return self._number > 0

    def pick(self, options: Sequence[Option]) -> Option:
        self._number, place = divmod(self._number, len(options))
        return options[place]


def rows_of(world: World, fragments: Iterable[Fragment]) -> list[tuple[str, list[Any], list[Any]]]:
    """Return fragments as (table, inserts, deletes) with rows as values, in sorted order."""
    return [
        (
            fragment.table_name,
            sorted(map(fragment.columns.codec.decode_exact, fragment.inserts)),
            sorted(map(fragment.columns.codec.decode_exact, fragment.deletes)),
        )
        for fragment in fragments
    ]


def seen_by(evaluation: Evaluation, actor: SubscriptionActor) -> ClientUpdate | None:
    """Return what one client sees."""
    found = [update for each, update in evaluation.others if each is actor]
    assert len(found) <= 1
    return found[0] if found else None


class Cache:
    """A client's cache: how often it was told of each row, per set (None: all of v1 together)."""

    def __init__(self) -> None:
        self.counts: dict[tuple[int | None, str], Counter[bytes]] = {}

    def apply(self, query_set_id: int | None, fragments: Iterable[Fragment]) -> None:
        """Count rows in and out. No row is taken out that is not there (I25)."""
        for fragment in fragments:
            if fragment.is_event:
                continue
            counts = self.counts.setdefault((query_set_id, fragment.table_name), Counter())
            counts.update(fragment.inserts)
            counts.subtract(fragment.deletes)
            assert all(count >= 0 for count in counts.values()), "a row was taken out that was not there"

    def update(self, update: ClientUpdate | None) -> None:
        for each in () if update is None else update.sets:
            for fragment in each.fragments:
                assert not set(fragment.inserts) & set(fragment.deletes), "one query put in and took out a row"
                assert fragment.inserts or fragment.deletes, "an empty fragment was told"
            self.apply(each.query_set_id, each.fragments)

    def contents(self) -> dict[tuple[int | None, str], Counter[bytes]]:
        return {key: +counts for key, counts in self.counts.items() if +counts}
