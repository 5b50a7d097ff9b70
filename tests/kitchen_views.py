"""The views of the recorded module `kitchen`: their definitions as recorded, and what they do."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from stdb.datastore.datastore import Datastore
from stdb.modules.protocol import ViewCall
from stdb.modules.views import MaterialisedViews
from stdb.sats import bsatn
from stdb.schema.model import ModuleDef, TableDef
from tests.http_harness import StandIn, recorded_definition

__all__ = ["VIEWS", "serve_views", "with_views"]


def first(call: ViewCall, datastore: Datastore) -> list[bytes]:
    """Return the person with the id 1."""
    person = datastore.table("person")
    assert person.primary is not None
    call.reads.add_key(person.schema.id, person.primary.id, 1)
    row = person.primary.find(1)
    return [] if row is None else [row]


def mine(call: ViewCall, datastore: Datastore) -> list[bytes]:
    """Return what the caller owns."""
    owned = datastore.table("owned")
    call.reads.tables.add(owned.schema.id)
    decode = owned.schema.codec.decode_exact
    return [row for row in owned.rows() if decode(row)[1] == call.sender]


def names(call: ViewCall, datastore: Datastore) -> list[bytes]:
    """Return the names of all persons."""
    person = datastore.table("person")
    call.reads.tables.add(person.schema.id)
    of_name = bsatn.codec(person.schema.definition.columns[1].type)
    return [of_name.encode(person.schema.codec.decode_exact(row)[1]) for row in person.rows()]


VIEWS: dict[str, Callable[[ViewCall, Datastore], list[bytes]]] = {"v_first": first, "v_mine": mine, "v_names": names}


def with_views(tables: tuple[TableDef, ...]) -> ModuleDef:
    """Return these tables with the recorded views."""
    recorded = recorded_definition("kitchen")
    return ModuleDef(recorded.typespace, tables, views=recorded.views)


def serve_views(datastore: Datastore, definition: ModuleDef, owner: bytes) -> None:
    """Let a datastore, whose catalogue has the views of a definition, have their rows."""
    module = StandIn(replace(definition, reducers=()), b"views", views=VIEWS)
    module.attach(datastore, bytes(32), None)
    views = MaterialisedViews(datastore, owner, lambda _: nullcontext(), lambda _, error: str(error))
    views.install(module)
    datastore.views = views
