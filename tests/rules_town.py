"""A small town with rules of row-level security: tables, rules and rows for the tests of them."""

from dataclasses import replace
from typing import Any

from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.sats.types import IDENTITY, STRING, U64
from stdb.schema.model import Access, ModuleDef, RowLevelSecurityDef
from stdb.sql.rules import replace_rules
from tests.datastore_samples import make_module, make_table
from tests.sql_schemas import CLIENT

OWN_LETTERS = "SELECT * FROM letter WHERE by = :sender"
LETTERS_TO = "SELECT * FROM letter WHERE to = :sender"
OWN_PERSON = "SELECT * FROM person WHERE who = :sender"
ROOMS_OF_STAY = "SELECT r.* FROM stay s JOIN room r ON s.room = r.id WHERE s.who = :sender"
ROOMS_OF_VAULT = "SELECT room.* FROM room JOIN vault ON room.id = vault.room WHERE vault.who = :sender"


ALICE, BOB = CLIENT, bytes([77] * 32)
TABLES = (
    make_table("person", {"who": IDENTITY, "boss": IDENTITY, "age": U64}, key="who", btree=("boss",)),
    make_table("letter", {"id": U64, "by": IDENTITY, "to": IDENTITY}, key="id", btree=("by", "to")),
    make_table("room", {"id": U64, "name": STRING}, key="id"),
    make_table("stay", {"who": IDENTITY, "room": U64}, btree=("who", "room")),
    make_table("vault", {"who": IDENTITY, "room": U64}, btree=("who", "room")),
    make_table("ping", {"id": U64, "to": IDENTITY}, event=True, btree=("to",)),
)


def town(*rules: str) -> Datastore:
    """Return a database of these tables, `vault` the only private one, with these rules."""
    datastore = Datastore()
    transaction = datastore.begin(0)
    datastore.create_tables(town_definition())
    replace_rules(datastore, map(RowLevelSecurityDef, rules))
    transaction.commit()
    return datastore


def town_definition(*rules: str) -> ModuleDef:
    tables = (table if table.name == "vault" else replace(table, access=Access.PUBLIC) for table in TABLES)
    return replace(make_module(*tables), row_level_security=tuple(map(RowLevelSecurityDef, rules)))


def fill(datastore: Datastore, **rows: list[tuple[Any, ...]]) -> Delta:
    transaction = datastore.begin(0)
    for name, listed in rows.items():
        table = datastore.table(name)
        for row in listed:
            transaction.insert(table, table.schema.codec.encode(row))
    delta = transaction.commit()
    assert delta is not None
    return delta
