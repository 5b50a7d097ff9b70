"""The schemas of `vectors/sql_cases.json` as datastores with rows, and the forms its cases are written in."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from stdb.datastore.datastore import Datastore
from stdb.sats import bsatn
from stdb.sats import types as t
from stdb.schema.model import (
    Access,
    ColumnDef,
    IndexAlgorithm,
    IndexDef,
    ModuleDef,
    RowLevelSecurityDef,
    SequenceDef,
    TableDef,
    UniqueDef,
)
from stdb.sql.rules import replace_rules
from tests.kitchen_views import serve_views, with_views

VECTORS = Path(__file__).parent / "vectors"
OWNER = bytes((*range(1, 31), 0x00, 0xC2))  # its hex begins with a letter, as those of all real ones
CLIENT = bytes(range(101, 133))
ANONYMOUS = bytes(range(201, 233))
IDENTITIES = {"owner": OWNER, "client": CLIENT, "anonymous": ANONYMOUS}

_NAMED = {
    **{kind.value: t.Scalar(kind) for kind in t.ScalarKind},
    "Bytes": t.BYTES,
    "Identity": t.IDENTITY,
    "ConnectionId": t.CONNECTION_ID,
    "Timestamp": t.TIMESTAMP,
    "TimeDuration": t.TIME_DURATION,
    "ScheduleAt": t.SCHEDULE_AT,
    "Uuid": t.UUID,
}
_TOKEN = re.compile(r"\s*([A-Za-z_0-9]+|[()<>|,:])")


@cache
def cases() -> dict[str, Any]:
    return json.loads((VECTORS / "sql_cases.json").read_text())


@cache
def recorded_texts() -> dict[str, dict[str, str]]:
    """The whole texts with which the real server answered subscriptions, by way, for cases that have a part of them."""
    document = json.loads((VECTORS / "recorded_sql" / "vectors_run.json").read_text())
    return {each["id"]: each["texts"] for each in document["cases"] if "texts" in each}


def substitute(text: str, identities: Mapping[str, bytes] = IDENTITIES) -> str:
    """Put identities in the place of `<identity:owner>` and the like."""
    for name, identity in identities.items():
        hexadecimal = identity[::-1].hex()
        text = text.replace(f"<identity:{name}>", hexadecimal).replace(f"<IDENTITY:{name}>", hexadecimal.upper())
    return text.replace("<fresh identity>", ANONYMOUS[::-1].hex())


def sql_of(case: dict[str, Any]) -> str:
    """Return the text of a case, built as it says."""
    if "sql_parts" in case:
        return "".join(text * times for text, times in case["sql_parts"])
    if "generate" in case:
        rule = case["generate"]
        return rule["prefix"] + rule["repeat"] * rule["times"]
    text = case["sql"] or ""
    if "pad_to" in case:
        head, tail = text.split("*/")
        text = f"{head}{' ' * (case['pad_to'] - len(text))}*/{tail}"
    return substitute(text)


class _Types:
    """Reads types as the vectors write them."""

    def __init__(self, named: dict[str, str]) -> None:
        self.named = named

    def read(self, text: str) -> t.AlgebraicType:
        enum = re.fullmatch(r"Enum\((.*)\)", text)
        if enum:
            # the module names them `Red`, the default case policy makes that `red`
            return t.Sum(tuple(t.Element(name.lower(), t.UNIT) for name in enum.group(1).split("|")))
        tokens = _TOKEN.findall(text)
        found = self._type(tokens)
        assert not tokens, text
        return found

    def _type(self, tokens: list[str]) -> t.AlgebraicType:
        token = tokens.pop(0)
        if token == "(":
            return self._composite(tokens)
        if token in self.named:
            return self.read(self.named[token])
        if tokens and tokens[0] in "<(":
            closing = {"<": ">", "(": ")"}[tokens.pop(0)]
            inner = [self._type(tokens)]
            while tokens[0] == ",":
                tokens.pop(0)
                inner.append(self._type(tokens))
            assert tokens.pop(0) == closing
            return {"Array": t.Array, "Option": t.option, "Result": t.result}[token](*inner)
        return _NAMED[token]

    def _composite(self, tokens: list[str]) -> t.AlgebraicType:
        elements = []
        separator = ","
        while tokens[0] != ")":
            name = tokens.pop(0)
            assert tokens.pop(0) == ":"
            elements.append(t.Element(name, self._type(tokens)))
            if tokens[0] in ",|":
                separator = tokens.pop(0)
        tokens.pop(0)
        return t.Sum(tuple(elements)) if separator == "|" else t.Product(tuple(elements))


def plain(type_: t.AlgebraicType, document: Any) -> Any:
    """Return the plain value of a row or column in positional JSON."""
    match type_:
        case t.IDENTITY | t.CONNECTION_ID | t.UUID:
            size = 32 if type_ == t.IDENTITY else 16
            (number,) = document if isinstance(document, list) else (document,)
            if isinstance(number, str) and not number.startswith("0x"):
                number = f"0x{number}"
            return _integer(number).to_bytes(size, "little")
        case t.TIMESTAMP | t.TIME_DURATION:
            return document[0]
        case t.SCHEDULE_AT:
            return (document[0], document[1][0])
        case t.BYTES:
            return bytes.fromhex(document)
        case t.Array(element):
            return [plain(element, each) for each in document]
        case t.Product(elements):
            return tuple(plain(element.type, each) for element, each in zip(elements, document, strict=True))
        case t.Sum(variants):
            tag, payload = document
            inner = t.option_inner(type_)
            if inner is None:
                return (tag, plain(variants[tag].type, payload))
            if tag == 1:
                return None
            value = plain(inner, payload)
            return (value,) if t.is_option(inner) else value
        case t.F32 | t.F64:
            return math.nan if document is None else float(document)
        case t.Scalar(kind) if kind.value[0] in "IU":
            return _integer(document)
    return document


def _integer(document: int | str) -> int:
    return int(document, 16) if isinstance(document, str) else document


def _index(table: str, columns: list[str], document: Any) -> IndexDef:
    if isinstance(document, list):
        algorithm, listed = "btree", document
    else:
        algorithm = next(each for each in ("btree", "hash", "direct") if each in document)
        listed = document[algorithm]
    name = f"{table}_{'_'.join(listed)}_idx_{algorithm}"
    return IndexDef(name, None, IndexAlgorithm[algorithm.upper()], tuple(map(columns.index, listed)), name)


def table_def(document: dict[str, Any], named: dict[str, str]) -> TableDef:
    """Return a table of the vectors as a definition."""
    name, types = document["name"], _Types(named)
    columns = [column for column, _ in document["columns"]]
    accessors = document.get("column_names_in_the_source", {})
    primary_key = document.get("primary_key")
    return TableDef(
        name,
        document.get("name_in_the_source", name),
        0,
        tuple(ColumnDef(each, accessors.get(each, each), types.read(text)) for each, text in document["columns"]),
        None if primary_key is None else columns.index(primary_key),
        tuple(_index(name, columns, each) for each in document["indexes"]),
        tuple(
            UniqueDef(f"{name}_{'_'.join(each)}_key", tuple(map(columns.index, each))) for each in document["unique"]
        ),
        tuple(SequenceDef(f"{name}_{each}_seq", columns.index(each)) for each in document["auto_inc"]),
        None,
        Access[document["access"].upper()],
        bool(document.get("event", False)),
    )


def datastore_of(schema: str, *, with_numbers: bool = False) -> Datastore:
    """Return a fresh database of a schema with its rules and the rows it has after init.

    `with_numbers`: also the two rows of `nums` that the ran-lit and ran-join cases look at.
    """
    document = cases()["schemas"][schema]
    named = document.get("types", {})
    definitions = tuple(table_def(each, named) for each in document["tables"])
    definition = with_views(definitions) if "views" in document else ModuleDef(t.Typespace.EMPTY, definitions)
    datastore = Datastore()
    datastore.begin(0)
    datastore.create_tables(definition)
    replace_rules(datastore, map(RowLevelSecurityDef, rules_of(schema)))
    for each in document["tables"]:
        rows = json.loads(substitute(each.get("rows_after_init_json_text", "[]")))
        insert(datastore, each["name"], rows, generated=each["auto_inc"])
    for name, rows in cases()["result_data"].get(schema, {}).items():
        insert(datastore, name, rows)
    if with_numbers:
        insert(datastore, "nums", [_literals_of(case) for case in cases()["cases"] if case["id"] in _NUMBERS])
    transaction = datastore.transaction
    assert transaction is not None
    transaction.commit()
    serve_views(datastore, definition, OWNER)
    return datastore


def rules_of(schema: str) -> list[str]:
    """Return the rules of row-level security of a schema."""
    document = cases()["schemas"][schema]
    of_tables = [rule for table in document["tables"] for rule in table.get("rls", [])]
    return [*of_tables, *document.get("row_level_security", [])]


_NUMBERS = ("ran-lit-001", "ran-lit-002")


def _literals_of(case: dict[str, Any]) -> list[Any]:
    return json.loads(f"[{case['sql'].rpartition('(')[2][:-1]}]")


def insert(datastore: Datastore, table_name: str, rows: list[Any], generated: Sequence[str] = ()) -> None:
    """Insert rows in positional JSON into a table, within the open transaction.

    `generated` are columns whose values the sequence of the table shall give; it must give those of the rows.
    """
    table = datastore.table(table_name)
    row_type = table.schema.row_type
    for row in rows:
        wanted = plain(row_type, row)
        given = (
            0 if column.name in generated else value for column, value in zip(row_type.elements, wanted, strict=True)
        )
        encoded = table.insert(bsatn.codec(row_type).encode(tuple(given)))
        assert encoded == bsatn.codec(row_type).encode(wanted)
