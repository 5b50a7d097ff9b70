"""Plans of migration as text, in what no recording shows; and values as Rust prints them."""

from dataclasses import replace
from typing import Any

import pytest

from stdb.actors.plan_text import RULE, plan_text
from stdb.actors.refusals import Unconfirmed
from stdb.actors.updates import plan_update
from stdb.datastore.datastore import Datastore
from stdb.net.errors import error_response
from stdb.sats import bsatn
from stdb.sats.debug import debug_value
from stdb.sats.types import (
    BOOL,
    BYTES,
    F64,
    IDENTITY,
    SCHEDULE_AT,
    STRING,
    TIMESTAMP,
    U8,
    U32,
    U64,
    UNIT,
    AlgebraicType,
    Array,
    Element,
    Product,
    Sum,
    option,
)
from stdb.schema.model import ColumnDef
from stdb.testing.hosts import identity
from stdb.testing.modules import FunctionModule, table, view
from tests.datastore_samples import make_table

HEADING = f"{RULE}\nDatabase Migration Plan\n{RULE}\n\n"
OLD = make_table("t", {"id": U32, "v": STRING}, key="id")


def stored(module: FunctionModule) -> Datastore:
    datastore = Datastore()
    datastore.begin(0)
    datastore.create_tables(module.definition)
    program = datastore.table("st_module")
    program.insert(program.schema.codec.encode((0, 0, 2, 7, b"old", "")))
    datastore.transaction.commit()  # type: ignore[union-attr]  # it is open
    return datastore


def entries(old: FunctionModule, new: FunctionModule, *, colored: bool = False) -> str:
    """Return a plan without its heading."""
    update = plan_update(stored(old), identity(1), old.definition, new)
    return plan_text(update, colored=colored).removeprefix(HEADING)


def module(*tables: Any, **options: Any) -> FunctionModule:
    return FunctionModule(list(tables), {}, **options)


def test_a_scheduled_table_shows_its_sequence_and_whom_it_calls() -> None:
    timer = make_table("timer", {"id": U64, "at": SCHEDULE_AT}, key="id", auto=("id",), schedule="at")
    assert entries(module(OLD), module(OLD, timer)) == (
        "▸ Created user table: timer (private)\n"
        "    Columns:\n"
        "        • id: U64\n"
        "        • at: (Interval: (__time_duration_micros__: I64) | "
        "Time: (__timestamp_micros_since_unix_epoch__: I64))\n"
        "    Unique constraints:\n"
        "        • timer_id_key on [id]\n"
        "    Indexes:\n"
        "        • timer_id_idx_btree on [id]\n"
        "    Auto-increment constraints:\n"
        "        • timer_id_seq on id\n"
        "    Schedule:\n"
        "        • Calls reducer: tick\n"
        "\n"
    )


def test_a_view_shows_its_parameters() -> None:
    shown = view(lambda *_: [], "t", {"limit": U8})
    assert entries(module(OLD), module(OLD, views={"some": shown})) == (
        "▸ ▸ Created view: some\n"
        "    Parameters:\n"
        "        • limit: U8\n"
        "    Columns:\n"
        "        • id: U32\n"
        "        • v: String\n"
        "\n"
    )


def test_other_keys_and_accessors_have_their_entries() -> None:
    unique = make_table("t", {"id": U32, "v": STRING}, key="id", unique=("v",))
    other = replace(unique, primary_key=1)
    assert entries(module(unique), module(other)) == (
        "▸ Changed primary key on table t (changed from column 0 to column 1)\n"
    )
    assert entries(module(OLD), module(replace(OLD, accessor="Tea"))) == "▸ Changed accessors of table t\n"


def test_changes_are_yellow_and_names_cyan() -> None:
    private = replace(OLD, access=table("x", {}, public=True).access)
    assert entries(module(OLD), module(private), colored=True).endswith(
        "▸ \x1b[0m\x1b[1m\x1b[33mChanged\x1b[0m access for table \x1b[0m\x1b[1m\x1b[36mt\x1b[0m "
        "(\x1b[0m\x1b[32mprivate → public\x1b[0m)\n"
    )


def test_every_column_that_is_added_has_a_line_with_its_default() -> None:
    columns = [("a", BOOL, True), ("b", STRING, "x"), ("c", option(U8), None)]
    added = tuple(ColumnDef(name, name, type_, bsatn.codec(type_).encode(value)) for name, type_, value in columns)
    text = entries(module(OLD), module(replace(OLD, columns=(*OLD.columns, *added))))
    assert text.startswith(
        "▸ Created column in table t\n"
        "    + a: Bool (default: Bool(\n    true,\n))\n"
        '    + b: String (default: String(\n    "x",\n))\n'
        "    + c: (some: U8 | none: ()) (default: Sum(\n    SumValue {\n        tag: 1,\n"
    )
    assert text.endswith("!!! Warning: All clients will be disconnected due to breaking schema changes\n")


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        (U32, 7, "U32(7)"),
        (BOOL, False, "Bool(false)"),
        (F64, 1.5, "F64(1.5)"),
        (F64, float("nan"), "F64(NaN)"),
        (F64, float("-inf"), "F64(-inf)"),
        (STRING, 'a"\\\n', 'String("a\\"\\\\\\n")'),
        (BYTES, b"\1\2", "Array(U8([1, 2]))"),
        (Array(BYTES), [b"\1", b""], "Array(Array([U8([1]), U8([])]))"),
        (Array(STRING), ["a", "b"], 'Array(String(["a", "b"]))'),
        (Array(UNIT), [()], "Array(Product([ProductValue { elements: [] }]))"),
        (UNIT, (), "Product(ProductValue { elements: [] })"),
        (IDENTITY, identity(5), "Product(ProductValue { elements: [U256(5)] })"),
        (TIMESTAMP, -3, "Product(ProductValue { elements: [I64(-3)] })"),
        (option(U8), 4, "Sum(SumValue { tag: 0, value: U8(4) })"),
        (option(option(U8)), (None,), None),
        (Sum((Element("a", UNIT), Element("b", U8))), (1, 9), "Sum(SumValue { tag: 1, value: U8(9) })"),
        (Product((Element("x", U8),)), (2,), "Product(ProductValue { elements: [U8(2)] })"),
    ],
)
def test_a_value_is_printed_as_rust_does(type_: AlgebraicType, value: Any, text: str | None) -> None:
    inner = "Sum(SumValue { tag: 1, value: Product(ProductValue { elements: [] }) })"
    assert debug_value(type_, value) == (text or f"Sum(SumValue {{ tag: 0, value: {inner} }})")


def test_a_value_over_several_lines_is_indented() -> None:
    type_ = Product((Element("a", U32), Element("b", BYTES)))
    assert debug_value(type_, (1, b"")) == "Product(ProductValue { elements: [U32(1), Array(U8([]))] })"
    assert debug_value(type_, (1, b"\2"), spread=True) == (
        "Product(\n    ProductValue {\n        elements: [\n            U32(\n                1,\n            ),\n"
        "            Array(\n                U8(\n                    [\n                        2,\n"
        "                    ],\n                ),\n            ),\n        ],\n    },\n)"
    )


def test_an_update_that_is_not_confirmed_is_503_or_504() -> None:
    for is_late, status in ((False, 503), (True, 504)):
        response = error_response(Unconfirmed("why", is_late=is_late))
        assert response is not None
        assert (response.status, response.body) == (status, b"Database update failed: why")
