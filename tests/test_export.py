"""Rows as text for real: out of a table and into it, through constraints and to subscribers; lines that are wrong."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.table import TableSchema
from stdb.net.row_text import BadLineError, RowReader, RowWriter
from stdb.sats.types import BOOL, BYTES, F64, STRING, U64, AlgebraicType, Array, option
from tests.cli_harness import SHOP, Place, ok, own_place, refused, run, started
from tests.datastore_samples import make_module, make_table
from tests.interop.npm import ROOT
from tests.interop.processes import Server, serve

pytestmark = pytest.mark.slow  # a server of its own

HEAD = "id,name,price,color,tags\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with own_place(tmp_path_factory.mktemp("home")) as place:
        yield place


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    with serve("--publish", f"{SHOP}=shop") as server:
        yield server


@pytest.fixture
def shop(server: Server, request: pytest.FixtureRequest) -> str:
    """A database of one test's own."""
    name = "s" + str(abs(hash(request.node.name)))
    ok(server, "fork", "shop", name, "--at", "0")
    return name


def rows(server: Server, database: str, columns: str = "*") -> list[list[Any]]:
    answer = ok(server, "sql", database, f"SELECT {columns} FROM item", "--format", "json")
    return sorted(json.loads(answer)[0]["rows"])


def imported(server: Server, database: str, path: Path, text: str, *options: str) -> str:
    path.write_bytes(text.encode())
    return ok(server, "import", database, "item", str(path), *options)


def not_imported(server: Server, database: str, path: Path, text: str, *options: str) -> str:
    path.write_bytes(text.encode())
    return refused(server, "import", database, "item", str(path), *options).splitlines()[0]


# --------------------------------------------------------------------------------------------------- there and back
@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_a_table_goes_out_and_into_another_database_unchanged(
    server: Server, shop: str, tmp_path: Path, format_: str
) -> None:
    for name, price in (('with "quotes", and commas', "1e300"), ("two\nlines\r\n", "-0.5"), ("", "7"), ("é\0", "3")):
        ok(server, "call", shop, "add", json.dumps(name), price)
    ok(server, "call", shop, "note", "x")
    for table in ("item", "bare"):
        path = tmp_path / f"{table}.{format_}"
        assert f": {4 if table == 'item' else 1} rows of {table}, " in ok(server, "export", shop, table, str(path))
        other = shop + format_ + table
        ok(server, "fork", "shop", other, "--at", "0")
        assert " rows inserted into " in ok(server, "import", other, table, str(path))
        again = tmp_path / f"again.{format_}"
        ok(server, "export", other, table, str(again))
        assert sorted(again.read_bytes().splitlines()) == sorted(path.read_bytes().splitlines())
    assert rows(server, shop + format_ + "item") == rows(server, shop)


def test_an_export_goes_through_pipes(server: Server, shop: str) -> None:
    ok(server, "call", shop, "add", "a", "1")
    command, arguments = [sys.executable, "-m", "stdb"], [shop, "item", "-", "--server", server.http]
    out = subprocess.run([*command, "export", *arguments], cwd=ROOT, capture_output=True, check=True)
    assert out.stdout == b'{"id":1,"name":"a","price":1.0,"color":{"none":{}},"tags":["a","x"]}\n'
    back = subprocess.run(
        [*command, "import", shop, "item", "-", "--server", server.http],
        cwd=ROOT,
        input=out.stdout,
        capture_output=True,
    )
    assert (back.returncode, back.stderr) == (0, b"")
    assert back.stdout == b"0 rows inserted into item in 1 transactions, 1 were there already.\n"


def test_an_empty_table_is_its_head(server: Server, shop: str, tmp_path: Path) -> None:
    ok(server, "export", shop, "item", str(tmp_path / "item.csv"))
    assert (tmp_path / "item.csv").read_bytes() == b"id,name,price,color,tags\r\n"
    ok(server, "export", shop, "item", str(tmp_path / "item.jsonl"))
    assert (tmp_path / "item.jsonl").read_bytes() == b""
    assert "0 rows inserted" in ok(server, "import", shop, "item", str(tmp_path / "item.csv"))


# --------------------------------------------------------------------------------------------------- into a table
def test_columns_come_in_any_order_and_ids_may_be_left_out(server: Server, shop: str, tmp_path: Path) -> None:
    text = '\ufefftags,price,name,color\n[],1.5,x,"{""none"":[]}"\n"[""t""]",NaN,y,"{""some"":{""red"":[]}}"\n'
    imported(server, shop, tmp_path / "i.csv", text)
    assert [row[:2] for row in rows(server, shop)] == [[1, "x"], [2, "y"]]
    imported(server, shop, tmp_path / "i.jsonl", '{"name":"z","price":2,"color":null,"tags":[]}\n\n')
    assert rows(server, shop)[-1][:3] == [3, "z", 2]


def test_rows_are_committed_so_many_at_a_time_and_subscribers_see_them(
    server: Server, shop: str, tmp_path: Path
) -> None:
    lines = "".join(f"{i},n{i},0,null,[]\n" for i in range(1, 251))
    command = ("subscribe", shop, "SELECT * FROM item", "--server", server.http, "--print-initial-update", "-n", "3")
    with started(*command) as (process, seen):
        assert json.loads(seen.next(20)) == {}
        done = imported(server, shop, tmp_path / "i.csv", HEAD + lines, "--rows", "100")
        assert done == "250 rows inserted into item in 3 transactions.\n"
        updates = [json.loads(seen.next(20)) for _ in range(3)]
        assert process.wait(20) == 0
    assert [len(update["item"]["inserts"]) for update in updates] == [100, 100, 50]
    log = [json.loads(line) for line in ok(server, "log", shop, "--format", "json").splitlines()]
    counts = [table["inserts"] for entry in log for table in entry["tables"] if table["table"] == "item"]
    assert counts == [100, 100, 50]


def test_a_row_that_breaks_a_constraint_ends_the_import_with_its_line(
    server: Server, shop: str, tmp_path: Path
) -> None:
    ok(server, "call", shop, "add", "taken", "1")
    lines = ["2,a,0,null,[]", "3,b,0,null,[]", "4,c,0,null,[]", "5,taken,0,null,[]", "6,e,0,null,[]"]
    text = HEAD + "\n".join(lines)
    error = not_imported(server, shop, tmp_path / "i.csv", text, "--rows", "2")
    assert error.startswith("Error: line 5: ")
    assert error.endswith("2 rows before it were imported, the last transaction ended before line 4")
    assert [row[1] for row in rows(server, shop)] == ["taken", "a", "b"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1: the names of the columns are missing: table `item` has `id`, `name`, `price`, `color`, `tags`"),
        ("id,nom,price,color,tags\n", "line 1: there is no column `nom`: table `item` has"),
        ("id,price,color,tags\n", "line 1: column `name` is missing: table `item` has"),
        ("id,name,name,price,color,tags\n", "line 1: column `name` is named twice"),
        (HEAD + "1,a,0,null\n", "line 2: it has 4 cells, the first line names 5 columns"),
        (HEAD + "1,a,0,null,[]\n2,b,much,null,[]\n", "line 3: $.price: "),
        (HEAD + '1,"two\nlines",0,null,[]\n2,b,0,null,7\n', "line 4: $.tags: "),
        (HEAD + '1,"open,0,null,[]\n2,b,0,null,[]\n', "line 2: a quote is opened here that is never closed"),
        (HEAD + '1,"a"b,0,null,[]\n', "line 2: it is no CSV: "),
        (HEAD + "-1,a,0,null,[]\n", "line 2: $.id: "),
    ],
)
def test_wrong_csv_is_told_by_its_line(server: Server, tmp_path: Path, text: str, error: str) -> None:
    told = not_imported(server, "shop", tmp_path / "i.csv", text)
    assert told.startswith(f"Error: {error}")
    assert "0 rows before it were imported" in told
    assert rows(server, "shop") == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[1]\n", "line 1: it is no JSON object"),
        ("\n{", "line 2: "),
        ('{"id":1}\n', "line 1: column `name` is missing"),
        ('{"id":1,"name":"a","price":0,"color":null,"tags":[],"x":0}', "line 1: there is no column `x`"),
        ('{"id":1,"name":"a","price":0,"color":null,"tags":[1]}', "line 1: $.tags[0]: "),
    ],
)
def test_wrong_json_is_told_by_its_line(server: Server, tmp_path: Path, text: str, error: str) -> None:
    assert not_imported(server, "shop", tmp_path / "i.jsonl", text).startswith(f"Error: {error}")


def test_tables_that_keep_no_rows_of_the_module_are_refused(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("")
    assert "`noise` is an event table: it keeps no rows" in refused(server, "import", "shop", "noise", str(path))
    assert "`st_client` is one of stdb's own" in refused(server, "import", "shop", "st_client", str(path))
    assert "no such table: `nope`; the module has bare, bell, item, noise" in refused(
        server, "export", "shop", "nope", str(path)
    )
    (code, _, err) = run("import", "shop", "item", str(tmp_path / "rows.txt"), "--server", server.http)
    assert (code, err.splitlines()[0]) == (
        2,
        f"Error: {tmp_path / 'rows.txt'}: is it csv or jsonl? Say so with --format.",
    )
    assert "a transaction takes 100000 at most" in refused(
        server, "import", "shop", "item", str(path), "--rows", "100001"
    )


# --------------------------------------------------------------------------------------------------- the text itself
def schema_of(columns: dict[str, AlgebraicType]) -> TableSchema:
    datastore = Datastore()
    transaction = datastore.begin(0)
    datastore.create_tables(make_module(make_table("t", columns)))
    transaction.commit()
    return datastore.table("t").schema


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_text_arrives_in_pieces_of_any_size(format_: str, size: int) -> None:
    columns: dict[str, AlgebraicType] = {
        "n": U64, "s": STRING, "o": option(STRING), "b": BYTES, "f": F64, "flag": BOOL, "l": Array(STRING),
    }  # fmt: skip
    schema = schema_of(columns)
    values = [
        (2**64 - 1, 'a"b\n\r,%s', None, b"\0\xff", float("inf"), True, ["x\ny", '"']),
        (0, "", "", b"", -0.0, False, []),
        (7, "NaN", "null", b"n", float("-inf"), True, [""]),
    ]
    stored = [schema.codec.encode(each) for each in values]
    writer = RowWriter(schema, format_)
    text = writer.head() + writer.lines(stored[:1]) + writer.lines(stored[1:])
    reader = RowReader(schema, format_)
    read = [row for start in range(0, len(text), size) for row in reader.feed(text[start : start + size])]
    read += reader.end()
    assert [each.row for each in read] == stored


@pytest.mark.parametrize(
    ("format_", "first", "more"),
    [("csv", b's\n"a', b"12345678\n"), ("csv", b"s\na", b"12345678"), ("jsonl", b"\n{", b"12345678")],
)
def test_a_line_without_end_is_refused(
    monkeypatch: pytest.MonkeyPatch, format_: str, first: bytes, more: bytes
) -> None:
    monkeypatch.setattr("stdb.net.row_text.LINE_BYTES_MAX", 100)
    reader = RowReader(schema_of({"s": STRING}), format_)
    assert list(reader.feed(first)) == []

    def feed() -> None:
        for _ in range(20):
            assert list(reader.feed(more)) == []

    with pytest.raises(BadLineError, match="line 2: it is longer than 100 bytes"):
        feed()
