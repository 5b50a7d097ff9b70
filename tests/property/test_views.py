"""Random views, subscriptions and transactions: every cache equals running the views anew after every transaction.

The machine of `test_subscriptions_properties` over a database with views that read by key, by scan, by what they have
read before and by query, for several identities and arguments, and that fail now and then: then the last good rows
stay. Its other checks go on: the plain twin, the caches, holdings.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from stdb.datastore.datastore import Datastore
from stdb.errors import ReducerError
from stdb.modules.protocol import ReadSet, ViewCall, ViewSql
from stdb.modules.views import MaterialisedViews
from stdb.sats.types import U32, UNIT, Array, Element, Product, Ref, Typespace
from stdb.schema.model import ModuleDef, ViewDef
from stdb.sql import Caller
from stdb.subscriptions.plain import bound_branches, rows_now, rows_of_branch
from tests.property.test_subscriptions_properties import Change, SubscriptionMachine, pools_of
from tests.subscriptions_world import JOINED, OWNER, World

_KIND = Product((Element("kind", U32),))
Row = tuple[Any, ...]


class Read:
    """What a view of these tests reads with; it notes what it reads."""

    def __init__(self, datastore: Datastore, call: ViewCall) -> None:
        self.datastore = datastore
        self.call = call

    def scan(self, name: str) -> list[Row]:
        table = self.datastore.table(name)
        self.call.reads.tables.add(table.schema.id)
        return [table.schema.codec.decode_exact(row) for row in table.rows()]

    def find(self, name: str, columns: tuple[int, ...], key: Any) -> list[Row]:
        table = self.datastore.table(name)
        index = table.index_on(columns)
        assert index is not None
        self.call.reads.add_key(table.schema.id, index.id, key)
        return [table.schema.codec.decode_exact(row) for row in index.find_all(key)]

    @property
    def sender(self) -> bytes:
        return self.call.sender or OWNER

    @property
    def kind(self) -> int:
        return int.from_bytes(self.call.args, "little")


def by_owner(read: Read) -> list[Row]:
    return [row for row in read.scan("item") if row[1] == read.sender]


def by_owner_key(read: Read) -> list[Row]:
    return read.find("item", (1,), read.sender[::-1])


def by_player(read: Read) -> list[Row]:
    """Return the items of the kind that the caller plays."""
    kinds = [kind for _, kind in read.find("player", (0,), read.sender[::-1])]
    return [row for kind in kinds for row in read.scan("item") if row[2] == kind]


def by_bag(read: Read) -> list[Row]:
    """Look up the items that the bag names, or all when it names the first."""
    named = {a for a, _ in read.scan("bag")}
    return read.scan("item") if 0 in named else [row for a in sorted(named) for row in read.find("item", (0,), a)]


def by_links(read: Read) -> list[Row]:
    """Follow links by key from the argument on; a link to itself is an error."""
    found, seen, at = [], set(), read.kind
    while at not in seen:
        seen.add(at)
        for a, b in sorted(read.find("link", (0,), at)):
            if a == b:
                raise ReducerError(f"{a} is linked to itself")
            at = b
        found += read.find("item", (0,), at)
    return found


def renumbered(read: Read) -> list[Row]:
    """Return items under their kinds: two of one kind have one primary key."""
    return [(kind, owner, kind, size) for _, owner, kind, size in read.scan("item")]


def query(read: Read) -> ViewSql:
    kinds = [kind for _, kind in read.find("player", (0,), OWNER[::-1])]
    return ViewSql(f"SELECT * FROM item WHERE {'id' if kinds else 'kind'} = {sum(kinds)}")


BODIES: list[Callable[[Read], Any]] = [by_owner, by_owner_key, by_player, by_bag, by_links, renumbered, query]


class Drawn(NamedTuple):
    """One view of a run."""

    run: Callable[[Read], Any]
    is_anonymous: bool
    has_key: bool
    fails_by: int
    """It fails while a row of `part` has this in its first column."""


_drawn = st.builds(Drawn, st.sampled_from(BODIES), st.booleans(), st.booleans(), st.integers(0, 5))
_names = st.sampled_from(["v0", "v1", "v2"])
_texts = st.one_of(
    _names.map("SELECT * FROM {}".format),
    _names.map("SELECT * FROM {}".format),
    st.integers(0, 2).map("SELECT * FROM asked({})".format),
    st.builds("SELECT * FROM {} WHERE kind = {}".format, _names, st.integers(0, 2)),
    st.builds("SELECT i.* FROM item i JOIN {} v ON i.id = v.id".format, _names),
    st.builds("SELECT v.* FROM {} v JOIN item i ON v.id = i.id WHERE i.kind = 1".format, _names),
    st.just("SELECT v.* FROM v0 v JOIN v1 w ON v.id = w.id"),
)


class Program:
    """The module of a run: views only."""

    program_hash = b""

    def __init__(self, drawn: list[Drawn], datastore: Datastore) -> None:
        self._drawn = drawn
        self._datastore = datastore
        tables = tuple(table.schema.definition for table in datastore.tables.values() if not table.schema.is_system)
        item = datastore.table("item").schema.row_type
        views = tuple(self._view(place, each) for place, each in enumerate(drawn))
        self.definition = ModuleDef(Typespace((item,)), tables, views=views)

    def _view(self, place: int, drawn: Drawn) -> ViewDef:
        name = "asked" if place == 3 else f"v{place}"
        key = "id" if drawn.has_key else None
        return ViewDef(
            name, name, place, True, drawn.is_anonymous, Array(Ref(0)), _KIND if place == 3 else UNIT, primary_key=key
        )

    def view(self, position: int) -> Callable[[ViewCall], list[bytes] | ViewSql]:
        return partial(self._run, self._drawn[position])

    def _run(self, drawn: Drawn, call: ViewCall) -> list[bytes] | ViewSql:
        read = Read(self._datastore, call)
        if drawn.fails_by < 3 and read.find("part", (0,), drawn.fails_by):
            raise ReducerError("some part fails it")
        result = drawn.run(read)
        if isinstance(result, ViewSql):
            return result
        encode = self._datastore.table("item").schema.codec.encode
        return [encode(row) for row in result]


class ViewsWorld(World):
    """A world with views."""

    def __init__(self, drawn: list[Drawn]) -> None:
        super().__init__(JOINED)
        program = Program(drawn, self.datastore)
        transaction = self.datastore.begin(0)
        self.datastore.create_tables(ModuleDef(program.definition.typespace, (), views=program.definition.views))
        transaction.commit()
        self.runs = self.failures = 0
        self.program = program
        self.views = MaterialisedViews(self.datastore, OWNER, self._count, self._failed)
        self.views.install(program)  # type: ignore[arg-type]  # of a module it takes the views
        self.datastore.views = self.views

    def _count(self, _reads: ReadSet) -> AbstractContextManager[None]:
        self.runs += 1
        return nullcontext()

    def _failed(self, _name: str, error: BaseException) -> str:
        self.failures += 1
        return str(error)

    def plain_rows(self, instance: Any) -> set[bytes] | None:
        """Return what a view returns now; None when it fails."""
        names = [view.name for view in self.program.definition.views]
        run = self.program.view(names.index(instance.shape.name))
        try:
            result = run(ViewCall(instance.sender, instance.args, ReadSet()))
        except ReducerError:
            return None
        if isinstance(result, ViewSql):
            (branch,) = bound_branches(result.text, self.datastore, Caller(OWNER, is_owner=True))
            return set(rows_of_branch(branch, rows_now(self.datastore)))
        rows = set(result)
        keys = {row[:4] for row in rows}
        return None if instance.shape.primary_key is not None and len(keys) < len(rows) else rows


class ViewsMachine(SubscriptionMachine):
    """Clients of every kind over views."""

    tables = ("item", "item", "item", "bag", "player", "link", "part")
    drawn_pool = pools_of(_texts, "SELECT * FROM v0", "SELECT * FROM asked(1)")
    world: ViewsWorld

    def make_world(self, data: Any) -> World:
        self.good: dict[int, set[bytes]] = {}
        """What each instance must hold, by the id of its table."""
        return ViewsWorld(data.draw(st.lists(_drawn, min_size=4, max_size=4)))

    def _commit(self, changes: list[Change], caller: Any) -> None:
        self._know_new_ones()
        super()._commit(changes, caller)
        for instance in self._instances():
            rows = self.world.plain_rows(instance)
            if rows is not None:
                self.good[instance.table.schema.id] = rows

    def _instances(self) -> list[Any]:
        return list(self.world.views._instances.values())

    def _know_new_ones(self) -> None:
        for instance in self._instances():
            if instance.table.schema.id not in self.good:
                rows = self.world.plain_rows(instance)
                assert rows is not None, "a view that fails when it is first read has no rows"
                self.good[instance.table.schema.id] = rows

    @invariant()
    def every_instance_has_its_last_good_rows(self) -> None:
        self._know_new_ones()
        for instance in self._instances():
            assert set(instance.table.rows()) == self.good[instance.table.schema.id], instance.shape.name
            instance.table.verify()

    @invariant()
    def only_what_is_held_is_kept(self) -> None:
        self.world.registry.sweep()
        plans = [query.plan for query in self.world.registry.queries()]
        held = {table.schema.id for plan in plans for table in plan.tables if table.schema.is_view}
        assert {instance.table.schema.id for instance in self._instances()} == held
        assert (self.world.datastore.refresh_views is None) == (not held)


TestViews = ViewsMachine.TestCase
TestViews.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
