"""What commands print, held to recorded answers of the real server and what the official command line made of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from stdb.cli.call import functions_of
from stdb.cli.databases import definition_of, entity
from stdb.cli.errors import CliError
from stdb.cli.logs import log_line
from stdb.cli.render import cell, function_signature, psql_table
from stdb.cli.sql import result_table
from stdb.cli.subscribe import Tables, change_line
from stdb.cli.suggestions import suggest
from stdb.sats import bsatn
from stdb.sats import json as sats_json
from stdb.sats.types import (
    F32,
    F64,
    STRING,
    TIME_DURATION,
    TIMESTAMP,
    U8,
    UUID,
    Array,
    Element,
    Product,
    Ref,
    Sum,
    Typespace,
)
from stdb.schema.model import ModuleDef, ReducerDef
from tests.cli_harness import RECORDED

VECTORS = Path(__file__).parent / "vectors"
KITCHEN: dict[str, Any] = json.loads((VECTORS / "schema/documents/kitchen_v10.json").read_text())
EVERY: dict[str, Any] = json.loads((VECTORS / "recorded_cli/every.json").read_text())[0]
"""The answer to `select * from every`: a column of every type."""
UNSTABLE = "WARNING: This command is UNSTABLE and subject to breaking changes.\n\n"


def table_of(index: int) -> list[list[str]]:
    return [line.split("|") for line in RECORDED[index]["stdout"].split("\n")]


# --------------------------------------------------------------------------------------------------- SQL
def every_row(id: int) -> dict[str, Any]:
    """Return the recorded JSON answer with every type, cut to one row."""
    return {**EVERY, "rows": [row for row in EVERY["rows"] if row[0] == id]}


def test_cells_of_every_type_are_printed_as_recorded() -> None:
    """But arrays: the official command line prints their items without brackets and commas."""
    wanted = [[cell.strip() for cell in line] for line in table_of(167)[:3]]
    printed = [[cell.strip() for cell in line.split("|")] for line in result_table(every_row(1)).split("\n")]
    assert len(printed) == 3
    assert printed[0] == wanted[0]
    assert [each.replace("[]", "") for each in printed[2]] == wanted[2]


def test_floats_without_a_json_form_are_nan() -> None:
    assert "| NaN  | NaN  |" in result_table(every_row(3)).split("\n")[2]


def test_null_inside_a_value_is_nan_too() -> None:
    document = {
        "schema": {"elements": [{"name": {"none": []}, "algebraic_type": {"Array": {"F64": []}}}]},
        "rows": [[[None, 1.0]]],
    }
    assert result_table(document) == " column 0 \n----------\n [NaN, 1] "


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        (F32, float("inf"), "inf"),
        (F64, float("-inf"), "-inf"),
        (F64, -0.0, "-0"),
        (F64, 1e300, "1" + "0" * 300),
        (F32, 0.10000000149011612, "0.1"),
        (STRING, 'say "hi"', '"say "hi""'),
        (Array(U8), b"\1\xff", "0x01ff"),
        (Array(STRING), ["a", "b"], '["a", "b"]'),
        (Array(STRING), [], "[]"),
        (TIMESTAMP, -1, "1969-12-31T23:59:59.999999+00:00"),
        (TIMESTAMP, 1_500_000, "1970-01-01T00:00:01.500+00:00"),
        (TIMESTAMP, 1 << 62, f"{1 << 62}µs"),
        (TIME_DURATION, -1_500_000, "-1.500000"),
        (Array(TIME_DURATION), [1], "[(__time_duration_micros__ = +0.000001)]"),
        (Array(UUID), [bytes(15) + b"\1"], '["01000000-0000-0000-0000-000000000000"]'),
        (Product((Element(None, U8), Element("b", U8))), (1, 2), "(col_0 = 1, b = 2)"),
        (Product(()), (), "()"),
        (Sum((Element("a", U8), Element(None, U8))), (1, 2), "(1 = 2)"),
    ],
)
def test_a_cell(type_: Any, value: Any, text: str) -> None:
    assert cell(type_, value) == text


def test_a_text_of_two_lines_makes_two_lines_of_the_table() -> None:
    assert psql_table(["a", "b"], [["1\n22", "x"]]) == " a  | b \n----+---\n 1  | x \n 22 |   "


# --------------------------------------------------------------------------------------------------- functions
def recorded_signatures() -> list[tuple[str, str]]:
    texts = [entry.get("stderr", "") for entry in RECORDED]
    lines = [text.split("signature:\n\t")[1].split("\n")[0] for text in texts if "signature:\n\t" in text]
    return [(line.split("(")[0], line) for line in lines]


@pytest.mark.parametrize(("name", "signature"), recorded_signatures())
def test_signatures_are_printed_as_recorded(name: str, signature: str) -> None:
    (function,) = [each for each in functions_of(definition_of(KITCHEN)) if each.name == name]
    assert function_signature(function.name, function.params) == signature


def test_a_type_that_contains_itself_has_a_signature() -> None:
    tree = Product((Element("below", Array(Ref(0))),))
    grow = ReducerDef("grow", "grow", Product((Element("t", Ref(0)), Element("n", U8))))
    (function,) = functions_of(ModuleDef(Typespace((tree,)), reducers=(grow,)))
    assert function.signature == "The reducer has the following signature:\n\tgrow(t: ?, n: u8)"


@pytest.mark.parametrize("index", [106, 108, 116, 131, 132, 133, 137, 146])
def test_suggestions_are_those_recorded(index: int) -> None:
    entry = RECORDED[index]
    functions = functions_of(definition_of(KITCHEN))
    names = {kind: [each.name for each in functions if each.kind == kind] for kind in ("reducer", "procedure")}
    wanted = entry["stderr"].removeprefix(UNSTABLE).split("\n\n", 1)[1].rstrip("\n")
    name = next(each for each in entry["args"][4:] if each != "--")
    assert suggest(name, names) == wanted


def test_a_module_without_functions_has_nothing_to_suggest() -> None:
    assert suggest("x", {"reducer": [], "procedure": []}) == ""


# --------------------------------------------------------------------------------------------------- describe
@pytest.mark.parametrize("index", [211, 212])
def test_a_table_and_a_reducer_are_described_as_recorded(index: int) -> None:
    kind, name = RECORDED[index]["args"][-2:]
    text = json.dumps(entity(KITCHEN, kind, name), indent=2, ensure_ascii=False) + "\n"
    assert text == RECORDED[index]["stdout"]


# --------------------------------------------------------------------------------------------------- subscribe
def test_rows_of_every_type_are_printed_as_recorded() -> None:
    document = sats_json.parse(RECORDED[224]["stdout"])
    definition = definition_of(KITCHEN)
    every = definition.table("every")
    assert every is not None
    values = [sats_json.decode(every.row_type, row) for row in document["every"]["inserts"]]
    data = b"".join(bsatn.codec(every.row_type).encode(value) for value in values)
    rows = Tables(definition).rows("every", (None, data))
    assert change_line({"every": ([], rows)}) + "\n" == RECORDED[224]["stdout"]


def test_rows_of_a_table_that_came_later_are_an_error_of_the_command() -> None:
    with pytest.raises(CliError, match="rows of `later`"):
        Tables(definition_of(KITCHEN)).rows("later", (None, b""))


# --------------------------------------------------------------------------------------------------- logs
def test_log_lines_are_printed_as_recorded() -> None:
    whole = [line for line in RECORDED[196]["stdout"].splitlines() if "characters ...>" not in line]
    assert len(whole) > 5
    for line in whole:
        assert f"{log_line(json.loads(line))}\n" in RECORDED[193]["stdout"]


def test_a_trace_follows_indented() -> None:
    frames = [{"module_name": "kitchen", "func_name": "spin"}, {"func_name": "call"}]
    entry = {
        "level": "Panic",
        "ts": 1_500_000,
        "filename": "a.py",
        "line_number": 3,
        "message": "boom",
        "trace": frames,
    }
    assert log_line(entry) == "1970-01-01T00:00:01.500000Z PANIC: a.py:3: boom\n    in kitchen :: spin\n    in call"


def test_a_line_of_the_host_about_a_function_names_it() -> None:
    host = "__spacetimedb__"
    entry = {"level": "Error", "ts": 0, "target": host, "filename": host, "function": "f", "message": "no"}
    assert log_line(entry) == "1970-01-01T00:00:00.000000Z ERROR: f: no"
    assert log_line(entry | {"function": host}) == "1970-01-01T00:00:00.000000Z ERROR: no"
