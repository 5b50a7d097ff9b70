"""Every recorded exchange that needs no WASM module is answered as recorded, "we" marks followed.

Stand-ins with the recorded definitions take the place of the recorded modules (`tests/http_harness.py`), so their
bodies do nothing but what an answer depends on. What is left out is counted here by section, with its reason.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import trio

from stdb.errors import ReducerError
from stdb.modules.protocol import Module
from stdb.net.http import BODY_BYTES_MAX
from stdb.net.routes_publish import PYTHON_MAGIC
from stdb.sats.types import U32, U64, Product
from stdb.schema import documents
from stdb.schema.model import (
    Access,
    ColumnDef,
    IndexAlgorithm,
    IndexDef,
    Lifecycle,
    ModuleDef,
    ReducerDef,
    RowLevelSecurityDef,
    TableDef,
    UniqueDef,
    Visibility,
)
from stdb.schema.validation import validate
from stdb.storage.settings import Own, Settings
from tests import kitchen_functions, kitchen_views, recorded_kitchen
from tests.http_harness import (
    Answer,
    Door,
    StandIn,
    canonical_json,
    expand,
    open_door,
    recorded_definition,
    same_text,
)

EXCHANGES = json.loads((Path(__file__).parent / "vectors/recorded_http/exchanges.json").read_text())["exchanges"]
SECTIONS = list(dict.fromkeys(entry["section"] for entry in EXCHANGES))
CORS_HEADERS = {
    "vary": "origin, access-control-request-method, access-control-request-headers",
    "access-control-allow-origin": "*",
}
COMPARED_HEADERS = {
    "content-type", "allow", "vary", "cache-control", "upgrade", "sec-websocket-protocol", "sec-websocket-accept",
    "sec-websocket-extensions", "spacetime-identity", "spacetime-identity-token", "spacetime-energy-used",
    "spacetime-execution-duration-micros", "access-control-allow-origin", "access-control-allow-methods",
    "access-control-allow-headers", "access-control-expose-headers", "access-control-allow-credentials",
}  # fmt: skip

NO_ZONES = json.dumps(
    [
        {
            "schema": {
                "elements": [
                    {"name": {"some": "zid"}, "algebraic_type": {"U32": []}},
                    {"name": {"some": "size"}, "algebraic_type": {"U32": []}},
                ]
            },
            "rows": [],
            "total_duration_micros": 0,
            "stats": {"rows_inserted": 0, "rows_deleted": 0, "rows_updated": 0},
        }
    ]
)

WE: dict[str, tuple[int, str]] = {
    "get /internal/heap": (404, ""),
    "get /internal/heap/settings": (404, ""),
    "get /internal/task-dump": (404, ""),
    "cors internal": (404, ""),
    "ping two tokens": (400, "Failed to deserialize query string: duplicate field `token`"),
    "garbage names": (404, "`garbage` not found"),
    "garbage info": (404, "`garbage` not found"),
    "publish unknown identity": (404, "No such database."),
    "post notowner new": (401, '{"NotYourDatabase":{"database":"<db:kitchen>"}}'),
    "post notowner taken": (401, '{"NotYourDatabase":{"database":"<db:kitchen>"}}'),
    "post anon": (401, '{"NotYourDatabase":{"database":"<db:kitchen>"}}'),
    "names now": (200, '{"names":["kitchen","kitchen-two"]}'),
    "names of second": (200, '{"names":["kitchen","kitchen-two"]}'),
    "put own existing": (200, '"Success"'),
    "put own + new": (200, '"Success"'),
    "names after dup": (200, '{"names":["dupname"]}'),
    "reset nobody": (200, '{"Success":{"domain":"world","database_identity":"<db:world>","op":"updated"}}'),
    "reset large": (413, "Failed to buffer the request body: length limit exceeded"),
    "republish deleted other": (
        403,
        "<identity:client> is not authorized to perform action on database <fresh identity>: update database",
    ),
    "republish deleted": (200, '{"Success":{"domain":"orgdb","database_identity":"<fresh identity>","op":"created"}}'),
    "cleanup orgdb": (200, ""),
    "world after reset": (200, NO_ZONES),
    "logs 0": (200, ""),
    "route GET /panic": (500, "The instance encountered a fatal error."),
    "unknown id": (404, "No such database."),
}
"""What "we" marks ask for: status and body."""

NO_BACK_TRACE: dict[str, tuple[int, str]] = {
    "proc p_panic": (500, "The module instance encountered a fatal error: procedure panics"),
}
"""What is told where the recorded server shows the module's back trace."""

LEFT_OUT = (
    (r"^1.3 29 mcp", "no MCP yet"),
    (r"\| get /(database/ping|metrics) \|", "a route of 0.11 stands there"),
    (r"\| logs( 5| max|) \||hook-connpanic logs", "the lines are the recorded module's own"),
    (r"\| metrics", "metrics are our own: test_http_server"),
)
"""What is not compared, by section, id and path; the first that matches gives the reason."""


HOST, RECORDED_HOST = "test", "127.0.0.1:3105"
ABRIDGED = re.compile(r"\.\.\.<(\d+) characters>$")
"""Where the recording leaves out the rest of a long body; it counts all of it."""


def left_out(entry: dict[str, Any]) -> str | None:
    """Return why an exchange is not compared; None when it is."""
    if "skip" in entry:
        return "cannot be replayed alone"
    if "response" not in entry:
        return "makes state, has no recorded answer"
    text = f"{entry['section']} | {entry['id']} | {entry['request'].get('path', '')}"
    for pattern, reason in LEFT_OUT:
        if re.search(pattern, text):
            return reason
    if "we" in entry and entry["id"] not in WE:
        return f"we: {entry['we']}"
    return None


# ---------------------------------------------------------------------- stand-ins
def refuse(text: str) -> Callable[..., None]:
    def run(*_: object) -> None:
        raise ReducerError(text)

    return run


def refuse_with_argument(_call: object, _datastore: object, _log: object, message: str) -> None:
    raise ReducerError(message)


def break_down(*_: object) -> None:
    raise ValueError("boom")


KITCHEN: dict[str, Callable[..., None]] = recorded_kitchen.HOOKS | {
    "r_err": refuse_with_argument,
    "r_panic": break_down,
    "r_panic_unique": break_down,
    "r_try_unique": refuse("insertion error on table `person`:duplicate unique column"),
}


def hooks(name: str) -> ModuleDef:
    """Return the definition that the recorded schema of a small module shows."""
    entry = next(entry for entry in EXCHANGES if entry["id"] == f"{name} schema")
    return validate(documents.from_json(json.loads(entry["response"]["body"])))


def kitchen() -> ModuleDef:
    """Return the definition of the recorded module of that name."""
    return recorded_definition("kitchen")


def with_init(definition: ModuleDef) -> ModuleDef:
    init = ReducerDef("init", "init", Product(()), Lifecycle.INIT, Visibility.PRIVATE)
    return replace(definition, reducers=(*definition.reducers, init))


def with_rule(definition: ModuleDef, sql: str) -> ModuleDef:
    """Return a definition with a rule of row-level security and a private table `p`."""
    private = replace(definition.tables[0], name="p", accessor="p", access=Access.PRIVATE, indexes=(), uniques=())
    return replace(definition, tables=(*definition.tables, private), row_level_security=(RowLevelSecurityDef(sql),))


def with_table(definition: ModuleDef) -> ModuleDef:
    """Return kitchen as its second version has it."""
    key = ColumnDef("id", "id", U32)
    index = IndexDef("added_in_v_2_id_idx_btree", "id", IndexAlgorithm.BTREE, (0,))
    unique = UniqueDef("added_in_v_2_id_key", (0,))
    added = TableDef("added_in_v_2", "added_in_v2", 0, (key,), 0, (index,), (unique,), access=Access.PUBLIC)
    return replace(definition, tables=(*definition.tables, added))


def with_column(definition: ModuleDef) -> ModuleDef:
    """Return kitchen as its third version has it."""
    extra = ColumnDef("extra", "extra", U32, bytes([7, 0, 0, 0]))
    return with_migr(definition, lambda columns: (*columns, extra))


def with_other_column_type(definition: ModuleDef) -> ModuleDef:
    """Return kitchen as its fourth version has it."""
    return with_migr(definition, lambda columns: tuple(replace(c, type=U64) if c.name == "v" else c for c in columns))


def with_migr(definition: ModuleDef, change: Callable[[tuple[ColumnDef, ...]], tuple[ColumnDef, ...]]) -> ModuleDef:
    """Return kitchen with other columns in its table `migr`."""
    tables = (
        replace(table, columns=change(table.columns)) if table.name == "migr" else table for table in definition.tables
    )
    return replace(definition, tables=tuple(tables))


@lru_cache
def stand_ins() -> dict[bytes, Callable[[], Module]]:
    """Return programs by their bytes: what each recorded file is here."""
    plain = hooks("hook-plain")
    definitions: dict[str, tuple[ModuleDef, dict[str, Callable[..., None]]]] = {
        "kitchen.wasm": (kitchen(), KITCHEN),
        "kitchen_v2.wasm": (with_table(kitchen()), KITCHEN),
        "kitchen_v3.wasm": (with_column(kitchen()), KITCHEN),
        "kitchen_v4.wasm": (with_other_column_type(kitchen()), KITCHEN),
        "world.wasm": (recorded_definition("world"), {}),
        "shop.wasm": (recorded_definition("shop"), {}),
        "guild.wasm": (recorded_definition("guild"), {}),
        "bad.wasm": (plain, {}),
        "bad_empty.wasm": (recorded_definition("hook-empty"), {}),
        "bad_rejectconn.wasm": (hooks("hook-rejectconn"), {"on_connect": refuse("go away")}),
        "bad_connpanic.wasm": (hooks("hook-connpanic"), {"on_connect": break_down}),
        "bad_rlsprivate.wasm": (with_rule(plain, "SELECT * FROM p"), {}),
        "bad_rlsbadsql.wasm": (with_rule(plain, "SELECT * FROM nosuch"), {}),
        "bad_initerr.wasm": (with_init(plain), {"init": refuse("init says no")}),
        "bad_initpanic.wasm": (with_init(plain), {"init": break_down}),
    }
    return {
        program_of(file): partial(
            StandIn,
            definition,
            program_of(file),
            behaviours,
            kitchen_views.VIEWS,
            kitchen_functions.PROCEDURES,
            kitchen_functions.ROUTES,
        )
        for file, (definition, behaviours) in definitions.items()
    }


def program_of(file: str) -> bytes:
    return PYTHON_MAGIC + file.encode()


# ---------------------------------------------------------------------- replay
class Replay:
    """Sends the exchanges in order and keeps what differs."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._values = {"host": HOST}
        for who in ("owner", "client"):
            minted = door.tokens.mint()
            self._values |= {f"identity:{who}": minted.hex, f"jwt:{who}": minted.token}
            self._values[f"IDENTITY:{who}"] = minted.hex.upper()

    async def exchange(self, entry: dict[str, Any]) -> list[str]:
        """Send one exchange and return what differs from the recorded answer."""
        request = entry["request"]
        path = expand(request["path_parts"]) if "path_parts" in request else self._fill(request["path"])
        headers = {
            name: expand(value["parts"]) if isinstance(value, dict) else self._fill(value)
            for name, value in request.get("headers", {}).items()
        }
        actual = await self._door.send(request["method"], path, headers, self._body(request))
        for name, where in entry.get("capture", {}).items():
            found = self._captured(actual, where)
            if found:
                self._values[name] = found
        if left_out(entry) is not None:
            return []
        return list(self._differences(entry, path, actual))

    def _body(self, request: dict[str, Any]) -> bytes:
        if "body" in request:
            return self._fill(request["body"]).encode()
        if "body_hex" in request:
            return bytes.fromhex(request["body_hex"])
        if "body_parts" in request:
            return expand(request["body_parts"]).encode()
        return program_of(request["body_file"]) if "body_file" in request else b""

    def _captured(self, actual: Answer, where: str) -> str | None:
        if where.startswith("header "):
            return actual.headers.get(where[7:])
        match = re.search(rf'"{where}":"([^"]*)"', actual.body.decode("utf-8", "replace"))
        return match[1] if match else None

    def _fill(self, text: str) -> str:
        return re.sub(r"<([\w: ]+)>", lambda match: self._values.get(match[1], match[0]), text)

    def _differences(self, entry: dict[str, Any], path: str, actual: Answer) -> Iterator[str]:
        expected = dict(entry["response"])
        headers = dict(expected.get("headers", [])) | (CORS_HEADERS if expected.get("cors") else {})
        if "we" in entry or entry["id"] in NO_BACK_TRACE:
            status, body = (NO_BACK_TRACE if entry["id"] in NO_BACK_TRACE else WE)[entry["id"]]
            expected |= {"status": status, "body": body}
            headers = ours(entry["id"], headers, body)
        if actual.status != expected["status"]:
            yield f"status {actual.status}, expected {expected['status']}: {actual.body[:300]!r}"
            return
        if expected["status"] == 530 and actual.reason != expected["reason"]:
            yield f"reason {actual.reason!r}, expected {expected['reason']!r}"
        for name in sorted(COMPARED_HEADERS):
            want, got = headers.get(name), actual.headers.get(name)
            if (want is None) != (got is None) or (want and got and not self._same_header(name, want, got)):
                yield f"header {name}: {got!r}, expected {want!r}"
        mode = entry.get("compare", "body")
        if mode == "schema":
            document = documents.to_json(kitchen(), 10 if "version=10" in path else 9)
            yield from self._body_difference(json.dumps(document), actual.text)
        elif mode != "head" and expected["status"] != 101 and "body" in expected:
            yield from self._body_difference(expected["body"], actual.text)

    def _same_header(self, name: str, want: str, got: str) -> bool:
        if name == "allow":
            return set(want.split(",")) == set(got.split(","))
        return same_text(self._fill(want), got)

    def _body_difference(self, expected: str, text: str) -> Iterator[str]:
        if abridged := ABRIDGED.search(expected):
            head = self._fill(expected[: abridged.start()])
            size = int(abridged[1]) - head.count(HOST) * (len(RECORDED_HOST) - len(HOST))
            if not text.startswith(head) or len(text) != size:
                yield f"body: {len(text)} characters, expected {size}, beginning with {head[:100]!r}"
            return
        want, got = self._mask(self._fill(expected)), self._mask(text)
        if (canonical := canonical_json(want)) is not None:
            want, got = canonical, canonical_json(got) or got
        if not same_text(want, got):
            at = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
            start = max(0, at - 60)
            yield f"body at {at}: {got[start : at + 100]!r}, expected {want[start : at + 100]!r}"

    def _mask(self, text: str) -> str:
        known = set(self._values.values()) | {"c200" + "11" * 30}
        text = re.sub(r"c200[0-9a-f]{60}", lambda match: match[0] if match[0] in known else "<hex>", text)
        text = re.sub(r"<db:[a-z]+>|<fresh identity>", "<hex>", text)
        text = text.replace('"host_type":{"Wasm":[]}', '"host_type":{"Python":[]}')
        text = re.sub(r'(total_duration_micros":\s*|"ts":|"line_number":)\d+', r"\g<1>0", text)
        text = re.sub(r'("(?:initial_program|token)":")0x[0-9a-f]+', r"\g<1><hash>", text)
        text = re.sub(r"(-----BEGIN PUBLIC KEY-----\n).*(\n-----END)", r"\1\2", text, flags=re.S)
        if '"connection_id"' in text:
            text = re.sub(r'"<u128>"|\b\d{30,39}\b', "0", text)
        return text


def ours(name: str, headers: dict[str, str], body: str) -> dict[str, str]:
    """Return the headers of an answer that differs from the recorded one: its body has another type, or no type."""
    headers = {key: value for key, value in headers.items() if key != "content-type"}
    if "internal" in name or "/internal" in name:
        return {}
    if name == "logs 0":
        return headers | {"content-type": "application/x-ndjson"}
    if body:
        kind = "application/json" if body[0] in '{["' else "text/plain; charset=utf-8"
        headers["content-type"] = kind
    return headers


async def replay() -> dict[str, list[str]]:
    """Send everything in order; return what differs, by section and id."""
    settings = Settings(stdb=Own(publish_bytes_max=BODY_BYTES_MAX))
    found: dict[str, list[str]] = {}
    async with open_door(stand_ins(), settings=settings) as door:
        replaying = Replay(door)
        for number, entry in enumerate(EXCHANGES):
            if entry.get("we") != "not sent" and "skip" not in entry:
                with trio.fail_after(10):
                    found[f"{number}"] = await replaying.exchange(entry)
    return found


@lru_cache
def differences() -> dict[str, list[str]]:
    return trio.run(replay)


COUNTED = {
    "1.1 conventions": {
        "a route of 0.11 stands there": 2,
    },
    "1.3 1-11 plain routes": {
        "metrics are our own: test_http_server": 2,
        "cannot be replayed alone": 1,
    },
    "1.3 12-13 publish": {
        "we: no JavaScript modules yet (the recorded build had them stubbed out)": 1,
    },
    "1.3 14-19 info, names, delete, lock": {
        "we: not sent": 4,
    },
    "1.3 15 delete": {
        "we: with orgdb": 1,
    },
    "1.3 21 connection hooks": {
        "the lines are the recorded module's own": 1,
    },
    "1.3 23 logs": {
        "makes state, has no recorded answer": 7,
        "the lines are the recorded module's own": 3,
        "cannot be replayed alone": 4,
    },
    "1.3 29 mcp": {
        "no MCP yet": 40,
    },
    "1.1 limits and protocol": {
        "metrics are our own: test_http_server": 1,
    },
}
"""How many exchanges of each section are not compared, and why."""


@pytest.mark.parametrize("section", SECTIONS)
def test_the_exchanges_of_a_section_are_answered_as_recorded(section: str) -> None:
    found = [
        f"{entry['id']}: {difference}"
        for number, entry in enumerate(EXCHANGES)
        if entry["section"] == section
        for difference in differences().get(str(number), [])
    ]
    assert not found, "\n".join(found)


def test_what_is_left_out_is_counted() -> None:
    found: dict[str, Counter[str]] = {}
    for entry in EXCHANGES:
        if (reason := left_out(entry)) is not None:
            found.setdefault(entry["section"], Counter())[reason] += 1
    assert found == COUNTED
    assert sum(sum(reasons.values()) for reasons in COUNTED.values()) == 67
    assert len(EXCHANGES) == 871
