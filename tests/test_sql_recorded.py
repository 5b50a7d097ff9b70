"""Every recorded statement, in order, over HTTP, and every recorded query over a WebSocket: answered as recorded.

A stand-in with the recorded definition takes the place of the module `kitchen` (`tests/recorded_kitchen.py`).
"""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import trio

from stdb.modules.protocol import Module
from stdb.net.routes_publish import PYTHON_MAGIC
from tests import kitchen_views, recorded_kitchen
from tests.http_harness import (
    Answer,
    Door,
    JsonSocket,
    StandIn,
    bearer,
    expand,
    open_door,
    open_socket,
    recorded_definition,
    same_text,
)

RECORDED = json.loads((Path(__file__).parent / "vectors/recorded_sql/statements.json").read_text("utf-8"))
STATEMENTS: list[dict[str, Any]] = RECORDED["statements"]
QUERY_SURFACES = ("SubscribeMulti", "SubscribeSingle", "OneOffQuery")

LEFT_OUT = {
    "follows from a change of a system table, which is refused here": "1445 1447 1450",
}
"""What is not compared, by number."""
LEFT_OUT_COUNTS = {
    "follows from a change of a system table, which is refused here": 3,
}

LEFT_OUT_NUMBERS = {int(number) for numbers in LEFT_OUT.values() for number in numbers.split()}

WE = {
    "400: DML on system tables is not supported": (400, "is a system table; DML on system tables is not supported"),
    "400: st_module is the owner's": (
        400,
        "no such table: `st_module`. If the table exists, it may be marked private.",
    ),
}
"""What "we" marks ask for: status and a part of the body."""

ANALYTIC = {
    748: [[3]], 750: [[2]], 752: [[4]], 753: [[[0, 2]]], 754: [[[0, 4 / 3]]], 757: [[1], [2]], 758: [[3, 3]],
    764: [[1], [1], [2]], 785: [[1], [2]],
}  # fmt: skip
"""The rows of what is refused there and an extension here; the rows of `plain` are (1, 1), (1, 2) and (2, 2)."""

ANALYTIC_COUNTS = {773: 1, 782: 2}
"""How many rows an OFFSET without an order leaves."""

TYPED_FIRST = (1281,)
"""Refused as recorded though a mark asks for other words: what is wrong with a statement itself is said first."""

ANY_ROWS = (1302,)
"""A LIMIT without an order: as many rows."""

HEADS = (1232, 1242)
"""Compared up to the rows, which hold a program or a token."""

# The modules.


def stand_ins() -> dict[bytes, Callable[[], Module]]:
    """Return programs by their bytes."""
    return {
        PYTHON_MAGIC + b"kitchen": partial(
            StandIn, recorded_kitchen.definition(), b"kitchen", recorded_kitchen.HOOKS, kitchen_views.VIEWS
        ),
        PYTHON_MAGIC + b"world": partial(StandIn, recorded_definition("world"), b"world"),
    }


# The replay.


class Replay:
    """Sends the statements in order and keeps what differs, by number."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._callers = {who: door.tokens.mint() for who in ("owner", "client")}
        self._values = {f"identity:{who}": minted.hex for who, minted in self._callers.items()}
        self._values |= {f"IDENTITY:{who}": minted.hex.upper() for who, minted in self._callers.items()}
        self._asked: Counter[str] = Counter()
        self.found: dict[int, list[str]] = {}

    async def run(self) -> None:
        """Send everything."""
        await self._publish("kitchen", "kitchen")
        category = ""
        for number, entry in enumerate(STATEMENTS):
            if entry["category"] != category:
                category = entry["category"]
                await self._prepare(category)
            with trio.fail_after(20):
                self.found[number] = [each async for each in self._differences(number, entry)]

    async def _prepare(self, category: str) -> None:
        if category == "sysdml":
            await self._publish("world", "scratch")
        if category in ("more", "star"):
            await self._publish("kitchen", "kitchen")

    async def _publish(self, program: str, name: str) -> None:
        answer = await self._door.publish(self._callers["owner"], name, PYTHON_MAGIC + program.encode(), "&clear=true")
        assert answer.status == 200, answer

    def _differences(self, number: int, entry: dict[str, Any]) -> AsyncIterator[str]:
        if entry["category"] == "star":
            return self._all_tables(entry)
        if entry["category"] == "sub" or "surface" in entry:
            return self._queries(number, entry)
        return self._statement(number, entry)

    def _fill(self, text: str) -> str:
        return re.sub(r"<([\w:]+)>", lambda match: self._values.get(match[1], match[0]), text)

    # Statements over HTTP.

    async def _statement(self, number: int, entry: dict[str, Any]) -> AsyncIterator[str]:
        body = bytes.fromhex(entry["sql_hex"]) if "sql_hex" in entry else self._sql(entry).encode()
        caller = self._callers.get(entry.get("caller", "owner"))
        path = f"/v1/database/{entry.get('db', 'kitchen')}/sql{entry.get('query', '')}"
        answer = await self._door.send("POST", path, {} if caller is None else bearer(caller), body)
        if number not in LEFT_OUT_NUMBERS:
            for difference in self._of_answer(number, entry, answer):
                yield difference

    def _sql(self, entry: dict[str, Any]) -> str:
        return expand(entry["sql_parts"]) if "sql_parts" in entry else self._fill(entry["sql"])

    def _of_answer(self, number: int, entry: dict[str, Any], answer: Answer) -> Iterator[str]:
        if number in ANALYTIC:
            yield from _unless(answer.status == 200 and sorted(rows_of(answer)) == ANALYTIC[number], answer.text)
        elif number in ANALYTIC_COUNTS:
            yield from _unless(answer.status == 200 and len(rows_of(answer)) == ANALYTIC_COUNTS[number], answer.text)
        elif entry.get("we") == "accepted":
            is_one = float(entry["sql"].rpartition("=")[2].strip(" '")) == 1
            yield from _unless(answer.status == 200 and rows_of(answer) == [[2]] * is_one, answer.text)
        elif entry.get("we") in WE and number not in TYPED_FIRST:
            status, part = WE[entry["we"]]
            yield from _unless(answer.status == status and part in answer.text, answer.text)
        elif answer.status != entry["status"]:
            yield f"status {answer.status}: {answer.text[:300]}"
        elif "error" in entry:
            yield from _unless(same_text(self._fill(entry["error"]), answer.text), answer.text)
        else:
            yield from self._of_result(number, self._fill(entry["result_text"]), answer.text)

    def _of_result(self, number: int, expected: str, actual: str) -> Iterator[str]:
        if number in HEADS:
            head = expected[: expected.index('"rows":')]
            yield from _unless(actual.startswith(head), actual)
        elif number in ANY_ROWS:
            (wanted,), (got,) = json.loads(expected), json.loads(actual)
            yield from _unless(wanted["schema"] == got["schema"] and len(wanted["rows"]) == len(got["rows"]), actual)
        else:
            yield from differences(expected, actual)

    # Queries over WebSockets.

    async def _queries(self, number: int, entry: dict[str, Any]) -> AsyncIterator[str]:
        """Ask on each surface, on a connection of its own: what a client has already it is not sent again."""
        for surface in QUERY_SURFACES:
            if entry.get("surface", surface) == surface:
                answer = entry if "surface" in entry else entry[surface]
                kind, text = await self._ask(entry, surface)
                if number not in LEFT_OUT_NUMBERS:
                    for difference in self._of_query(answer, kind, text):
                        yield f"{surface}: {difference}"

    def _of_query(self, recorded: dict[str, Any], kind: str, text: str) -> Iterator[str]:
        expected = self._fill(recorded.get(kind, ""))
        if not expected:
            yield f"{kind} {text[:300]}"
        elif kind == "error":
            yield from _unless(text == expected, text)
        elif expected.endswith("\u2026"):
            yield from cut_differences(expected, text)
        else:
            yield from differences(expected, text)

    async def _ask(self, entry: dict[str, Any], surface: str) -> tuple[str, str]:
        """Return `ok` and the answer, or `error` and its text."""
        who = entry.get("caller", "owner")
        async with open_socket(self._door, "kitchen", self._callers[who]) as socket:
            return await ask(socket, surface, entry["sql"], self._request_id(entry, surface, who))

    def _request_id(self, entry: dict[str, Any], surface: str, who: str) -> int:
        if entry["category"] != "sub":
            return 1
        self._asked[who] += surface != "OneOffQuery"
        return self._asked[who]

    async def _all_tables(self, entry: dict[str, Any]) -> AsyncIterator[str]:
        for who, expected in entry["tables_in_the_answer"].items():
            kind, text = await self._ask(entry | {"caller": who}, entry["surface"])
            tables = [table["table_name"] for table in json.loads(text)["update"]["tables"]]
            for difference in _unless(kind == "ok" and tables == expected, text):
                yield difference


def rows_of(answer: Answer) -> list[Any]:
    rows: list[Any] = answer.document[0]["rows"]
    return rows


async def ask(socket: JsonSocket, surface: str, sql: str, request_id: int) -> tuple[str, str]:
    """Send one query; return `ok` and the answer, or `error` and its text."""
    if surface == "OneOffQuery":
        await socket.send(surface, message_id="0102", query_string=sql)
        _, answer = await socket.receive("OneOffQueryResponse")
        error = answer["error"].get("some")
    else:
        query = {"query_strings": [sql]} if surface == "SubscribeMulti" else {"query": sql}
        await socket.send(surface, **query, request_id=request_id, query_id={"id": request_id})
        kind, answer = await socket.receive("SubscribeMultiApplied", "SubscribeApplied", "SubscriptionError")
        error = answer["error"] if kind == "SubscriptionError" else None
    return ("ok", json.dumps(answer, ensure_ascii=False)) if error is None else ("error", error)


# Comparing.


def _unless(agrees: bool, text: str) -> Iterator[str]:
    if not agrees:
        yield text[:400]


def differences(expected: str, actual: str) -> Iterator[str]:
    """Yield where an answer is not the recorded one."""
    if expected.startswith("{"):
        actual = json.dumps(_with_arrays(json.loads(actual)), ensure_ascii=False)
    want, got = (json.dumps(comparable(_parse(text)), sort_keys=True) for text in (expected, actual))
    if not same_text(want, got):
        at = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
        start = max(0, at - 60)
        yield f"at {at}: {got[start : at + 100]!r}, expected {want[start : at + 100]!r}"


def _with_arrays(value: Any, is_view: bool = False) -> Any:
    """Return an answer with rows of views as arrays: so the reference sends them in JSON, tables' as objects."""
    if isinstance(value, list):
        return [_with_arrays(each, is_view) for each in value]
    if isinstance(value, dict):
        is_view = is_view or value.get("table_name") in kitchen_views.VIEWS
        return {key: each if key == "table_name" else _with_arrays(each, is_view) for key, each in value.items()}
    return json.dumps(_positional(json.loads(value))) if is_view and isinstance(value, str) else value


def _positional(value: Any) -> Any:
    return [_positional(each) for each in value.values()] if isinstance(value, dict) else value


def cut_differences(expected: str, actual: str) -> Iterator[str]:
    """Yield where an answer is not one of which the recording has the beginning: its tables, counts and rows so far."""
    heads = [TABLE_HEAD.findall(text) for text in (expected, actual)]
    yield from _unless(heads[0] == heads[1][: len(heads[0])], f"{heads[1]}, expected {heads[0]}")
    rows = [
        Counter(json.dumps(comparable(_parse(row)), sort_keys=True) for row in _rows_in(text))
        for text in (expected, actual)
    ]
    yield from _unless(rows[0] <= rows[1], f"without {rows[0] - rows[1]}")


TABLE_HEAD = re.compile(r'"table_name": "(?!conn_log)(\w+)"(?:, "num_rows": (\d+))?')
ROW = re.compile(r'"((?:[^"\\\\]|\\\\.)*)"(?=[,\]])')


def _rows_in(text: str) -> list[str]:
    """Return the whole rows that an answer, or the beginning of one, has."""
    found = (json.loads(f'"{row}"') for row in ROW.findall(text))
    return [row for row in found if row.startswith("{")]


def _parse(text: str) -> Any:
    return json.loads(text, parse_int="\x01{}".format, parse_float="\x01{}".format)


def comparable(value: Any) -> Any:
    """Return an answer with bags in order and with what is never the same twice blanked."""
    if isinstance(value, list):
        return [comparable(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "schema" in value:
        names = [column["name"].get("some") for column in value["schema"]["elements"]]
        rows = [dict(zip(names, row, strict=True)) for row in value["rows"]]
        return {"schema": value["schema"], "rows": _bag(rows), "stats": value["stats"], "more": sorted(value)}
    return {key: _member(key, each) for key, each in value.items()}


def _member(key: str, value: Any) -> Any:
    if key in NEVER_THE_SAME or key.startswith("total_"):
        return None
    if key in ("inserts", "deletes", "rows") and isinstance(value, list):
        return _bag([_parse(row) for row in value])
    if key == "tables":
        return sorted(comparable(value), key=lambda table: str(table["table_name"]))
    return comparable(value)


def _bag(rows: list[Any]) -> list[str]:
    texts = [json.dumps(comparable(row), sort_keys=True) for row in rows]
    return sorted(texts)


NEVER_THE_SAME = ("connection_id", "conn", "allocated", "index_id", "constraint_id")


@lru_cache
def replayed() -> dict[int, list[str]]:
    """Replay everything; return what differs, by number."""

    async def main() -> dict[int, list[str]]:
        async with open_door(stand_ins()) as door:
            replay = Replay(door)
            await replay.run()
            return replay.found

    return trio.run(main)


@pytest.mark.parametrize("category", RECORDED["categories"] | {"star": "all tables"})
def test_the_statements_of_a_category_are_answered_as_recorded(category: str) -> None:
    found = [
        f"{number} {entry.get('sql', '')[:200]}: {difference}"
        for number, entry in enumerate(STATEMENTS)
        if entry["category"] == category
        for difference in replayed()[number]
    ]
    assert not found, "\n".join(found)


def test_what_is_left_out_is_counted() -> None:
    assert {reason: len(numbers.split()) for reason, numbers in LEFT_OUT.items()} == LEFT_OUT_COUNTS
    assert len(STATEMENTS) == len(replayed()) == 1581
    marked = {number: entry["we"] for number, entry in enumerate(STATEMENTS) if "we" in entry}
    assert Counter(marked.values()) == {
        "accepted": 16,
        "may be accepted: analytic SQL is an extension of ours": 10,
        "400: DML on system tables is not supported": 10,
        "400: st_module is the owner's": 2,
    }
    ours = ANALYTIC.keys() | ANALYTIC_COUNTS.keys()
    assert all(mark in ("accepted", *WE) or number in ours for number, mark in marked.items())
    assert ours - marked.keys() == {758}, "several aggregates of one SELECT are part of the same extension"
