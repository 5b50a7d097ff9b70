"""Updates between any two definitions: refused without a change, or done, rows kept, and the same after a restart."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.refusals import UpdateRejected
from stdb.actors.updates import Policy
from stdb.datastore.datastore import Datastore
from stdb.errors import UniqueViolation
from stdb.sats import bsatn
from stdb.sats.types import STRING, U8, U32, U64, UNIT, Element, Sum, option
from stdb.schema.model import Access, TableDef
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.modules import Context, FunctionModule, reducer
from stdb.testing.storage import MemoryStorage
from tests.datastore_samples import make_table
from tests.test_actors_database import run

OWNER = identity(99)
NAMES = ("s", "t")
VALUES: dict[str, Any] = {
    "id": st.integers(0, 4),
    "v": st.sampled_from("abc"),
    "e": st.sampled_from([(0, ()), (1, ())]),
    "n": st.integers(0, 3),
    "f": st.sampled_from([None, 1]),
}
DEFAULTS: dict[str, Any] = {"n": 7, "f": None}


def enum(count: int) -> Sum:
    return Sum(tuple(Element(name, UNIT) for name in "abcd"[:count]))


@st.composite
def table_definitions(draw: st.DrawFn, name: str) -> TableDef:
    columns: dict[str, Any] = {"id": draw(st.sampled_from([U32] * 9 + [U64])), "v": STRING}
    if draw(st.booleans()):
        columns["e"] = enum(draw(st.integers(2, 4)))
    for column, type_ in (("n", U32), ("f", option(U8))):
        if draw(st.booleans()):
            columns[column] = type_
    if draw(st.integers(0, 9)) == 0:
        columns = dict(reversed(columns.items()))
    key = draw(st.sampled_from([None, "id", "v"]))
    unique = tuple(each for each in ("id", "v", "id,v") if each != key and draw(st.integers(0, 3)) == 0)
    kind = {each: draw(st.sampled_from([None, None, "btree", "hashed"])) for each in ("id", "v", "v,id")}
    taken = {key, *unique}
    table = make_table(
        name,
        columns,
        key=key,
        unique=unique,
        btree=tuple(each for each, how in kind.items() if how == "btree" and each not in taken),
        hashed=tuple(each for each, how in kind.items() if how == "hashed"),
        auto=("id",) if draw(st.integers(0, 2)) == 0 else (),
        event=draw(st.integers(0, 9)) == 0,
    )
    access = draw(st.sampled_from([Access.PUBLIC, Access.PUBLIC, Access.PRIVATE]))
    with_defaults = tuple(
        replace(each, default=bsatn.codec(each.type).encode(DEFAULTS[each.name])) if each.name in DEFAULTS else each
        for each in table.columns
    )
    accessor = draw(st.sampled_from([name, name.title()]))
    return replace(table, columns=with_defaults, access=access, accessor=accessor)


@st.composite
def modules(draw: st.DrawFn, version: str) -> FunctionModule:
    tables = [draw(table_definitions(name)) for name in NAMES if draw(st.integers(0, 4))]
    rows = [
        (table.name, tuple(draw(VALUES[column.name]) for column in table.columns))
        for table in tables
        for _ in range(draw(st.integers(0, 4)))
    ]

    def fill(ctx: Context) -> None:
        for name, values in rows:
            try:
                ctx.insert(name, *values)
            except UniqueViolation:
                continue

    return FunctionModule(tables, {"fill": reducer(fill)}, version=version)


def contents(datastore: Datastore) -> dict[str, list[bytes]]:
    """Return all rows but those of clients, by table."""
    skipped = ("st_client", "st_connection_credentials")
    return {
        table.schema.name: sorted(table.rows())
        for table in datastore.tables.values()
        if table.schema.name not in skipped
    }


def shapes(datastore: Datastore) -> dict[str, Any]:
    """Return what tables are, ids included."""
    found = {}
    for table in datastore.tables.values():
        schema, definition = table.schema, table.schema.definition
        columns = [(column.name, column.accessor, column.type) for column in definition.columns]
        indexes = {
            (index_id, index.name, index.algorithm, index.columns)
            for index_id, index in zip(schema.index_ids, definition.indexes, strict=True)
        }
        kinds = {(index.name, index.unique) for index in table.indexes}
        sequences = {(sequence.id, sequence.column) for sequence in table.sequences}
        others = (definition.accessor, definition.primary_key, definition.access, definition.is_event)
        found[schema.name] = (schema.id, columns, indexes, kinds, sequences, set(schema.constraint_ids), others)
    return found


def decoded(datastore: Datastore, definition: TableDef) -> list[dict[str, Any]]:
    codec = bsatn.codec(definition.row_type)
    names = [column.name for column in definition.columns]
    rows = [dict(zip(names, codec.decode_exact(row), strict=True)) for row in datastore.table(definition.name).rows()]
    return sorted(rows, key=repr)


async def told_of(handle: DatabaseHandle, module: FunctionModule) -> tuple[TestClient, list[str]]:
    """Return a client with subscriptions to all tables that it may see, and their names."""
    client = TestClient(handle, 5)
    names = [each.name for each in module.definition.tables if each.access is Access.PUBLIC and not each.is_event]
    if names:
        await client.subscribe(1, *(f"SELECT * FROM {name}" for name in names))
    return client, names


async def refused(host: Host, where: bytes) -> str | None:
    """Update; return why not, or None."""
    try:
        await host.publish(OWNER, b"new", identity=where, policy=Policy(breaks_clients=True))
    except UpdateRejected as refusal:
        return str(refusal)
    return None


def seen(client: TestClient, name: str) -> list[bytes]:
    return sorted(row for _, table, row in client.sink.rows() if table == name)


@settings(max_examples=60, deadline=None)
@given(old=modules("old"), new=modules("new"))
def test_an_update_is_all_or_nothing_and_the_same_after_a_restart(old: FunctionModule, new: FunctionModule) -> None:
    async def main() -> None:
        storage = MemoryStorage()
        programs = {b"old": lambda: old, b"new": lambda: new}
        async with open_host(programs, storage) as host:
            where = (await host.publish(OWNER, b"old", name="it")).identity
            handle = host.database(where)
            client, names = await told_of(handle, old)
            await client.call("fill")
            datastore = handle._actor.datastore
            before, shape = contents(datastore), shapes(datastore)
            rows = {each.name: decoded(datastore, each) for each in old.definition.tables}
            prospect = await host.plan(OWNER, where, b"new")
            refusal = await refused(host, where)
            if refusal is not None:
                assert prospect.update is not None or refusal == prospect.refusal
                assert (contents(datastore), shapes(datastore)) == (before, shape)
                assert client.sink.closed is None
            else:
                assert prospect.update is not None
                check_rows(datastore, rows, new)
                must_go = prospect.update.breaks_clients or became_private(old, new)
                if prospect.update.breaks_clients:
                    await client.attachment.wait_detached()
                assert (client.sink.closed is not None) == must_go, (client.sink.closed, prospect.update.steps)
            if client.sink.closed is None:
                await client.call("fill")
                for name in names:
                    assert seen(client, name) == sorted(datastore.table(name).rows())
            else:
                await TestClient(handle, 6).call("fill")
            datastore.verify()
            after, shape = contents(datastore), shapes(datastore)
        async with open_host(programs, storage) as host:
            await host.database(where).ready()
            again = host.database(where)._actor.datastore
            again.verify()
            assert (contents(again), shapes(again)) == (after, shape)
        storage.close()

    run(main)


def became_private(old: FunctionModule, new: FunctionModule) -> bool:
    """Tell whether a table that the client reads is none of its business any more."""
    return any(
        each.access is Access.PUBLIC and not each.is_event and now is not None and now.access is Access.PRIVATE
        for each, now in ((each, new.definition.table(each.name)) for each in old.definition.tables)
    )


def check_rows(datastore: Datastore, rows: dict[str, list[dict[str, Any]]], new: FunctionModule) -> None:
    """Check that every row is there, with the defaults of the columns that were added."""
    for definition in new.definition.tables:
        defaults = {each.name: DEFAULTS[each.name] for each in definition.columns if each.name in DEFAULTS}
        expected = [{**defaults, **row} for row in rows.get(definition.name, [])]
        assert decoded(datastore, definition) == sorted(
            ({column.name: row[column.name] for column in definition.columns} for row in expected), key=repr
        )
