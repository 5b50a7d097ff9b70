"""Scripts for `c_modules/calls.c`: which functions of the host to call with what, and what became of it."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from struct import pack
from typing import Any, NamedTuple

import trio
from trio.testing import MockClock

from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host
from stdb.actors.requests import CallProcedure
from stdb.actors.sink import Client, OutcomeKind, ReducerOutcome
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import Limits
from stdb.sats import bsatn
from stdb.testing.hosts import TestClient, identity, open_host, virtual_now_us
from stdb.testing.sinks import ProcedureFailed, ProcedureReturned
from tests.interop.module_clang import SOURCES
from tests.wasm_guests import RUNTIMES

__all__ = [
    "COUNTER",
    "DATA",
    "INDEX",
    "ITERATOR",
    "KEY",
    "LENGTH",
    "OUT",
    "RESULT",
    "ROW",
    "TABLE",
    "U32",
    "U64",
    "USED",
    "At",
    "End",
    "Guest",
    "Report",
    "Script",
    "Sink",
    "Source",
    "call",
    "open_guest",
    "play",
]

_CALL = (SOURCES / "calls.c").read_text().partition("static i64 call(")[2].partition("\n}\n")[0]
FUNCTIONS = {name: int(number) for number, name in re.findall(r"case (\d+): (?:return )?(\w+)\(", _CALL)}
"""Functions of the host by name: the number by which a script calls each."""

OUT, LENGTH, TABLE, INDEX, ITERATOR, USED = 16, 32, 40, 44, 48, 56
"""Places in ROOM for what functions write, and for what is kept."""
NAME, KEY, LOWER, UPPER = 0x100, 0x400, 0x600, 0x800
ROW, DATA = 0x1000, 0x20000
"""Places for rows that are sent, and for rows that were read."""


class At(NamedTuple):
    """The address of a place in ROOM."""

    place: int


class U32(NamedTuple):
    """The u32 at a place in ROOM."""

    place: int


class U64(NamedTuple):
    """The u64 at a place in ROOM."""

    place: int


class Sink(NamedTuple):
    """A sink of the call."""

    position: int = 0


class Source(NamedTuple):
    """A source of the call."""

    position: int = 0


class End(NamedTuple):
    """An address so many bytes before the end of the memory."""

    before: int


class _Special(NamedTuple):
    tag: int


RESULT, COUNTER = _Special(8), _Special(9)
"""What the last call returned; the counter that survives calls."""
Operand = int | At | U32 | U64 | Sink | Source | End | _Special


class Script:
    """The bytes of a script, step by step. Every method appends and returns the script."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)

    def as_argument(self) -> bytes:
        """Return the script as an array of bytes, which functions are called with."""
        return pack("<I", len(self._bytes)) + self._bytes

    # Steps

    def put(self, place: int, data: bytes) -> "Script":
        """Put bytes there."""
        return self._add(b"\0" + pack("<II", place, len(data)) + data)

    def call(self, name: str, *operands: Operand) -> "Script":
        """Call a function of the host."""
        return self._add(bytes([1, FUNCTIONS[name], len(operands)]) + b"".join(map(_operand, operands)))

    def end(self, code: int) -> "Script":
        """Return from the function that runs."""
        return self._add(bytes([2, code]))

    def trap(self) -> "Script":
        """Trap."""
        return self._add(b"\3")

    def keep(self, place: int, value: Operand, size: int = 4) -> "Script":
        """Put a value there."""
        return self._add(b"\4" + pack("<IB", place, size) + _operand(value))

    def copy(self, place: int, start: int, size: Operand) -> "Script":
        """Copy what is in ROOM."""
        return self._add(b"\5" + pack("<II", place, start) + _operand(size))

    def report(self, tag: str, place: int = 0, size: Operand = 0) -> "Script":
        """Insert a row of `outp`: a tag, what the last call returned, the counter, bytes."""
        name = tag.encode()
        return self._add(b"\6" + bytes([len(name)]) + name + pack("<I", place) + _operand(size))

    def count(self, value: Operand) -> "Script":
        """Set the counter."""
        return self._add(b"\7" + _operand(value))

    def drain(self, iterator: Operand, place: int) -> "Script":
        """Read an iterator to its end; its length is put there, its bytes behind."""
        return self._add(b"\x08" + _operand(iterator) + pack("<I", place))

    def grow(self, pages: Operand) -> "Script":
        """Let the memory grow."""
        return self._add(b"\x09" + _operand(pages))

    def loop(self) -> "Script":
        """Never end."""
        return self._add(b"\x0a")

    def recurse(self, depth: Operand) -> "Script":
        """Call a function in a function, so deep."""
        return self._add(b"\x0b" + _operand(depth))

    def unless(self, result: int) -> "Script":
        """Trap, as guests of SDKs do, unless the last call returned this."""
        return self._add(b"\x0c" + pack("<I", result & 0xFFFFFFFF))

    def say(self, place: int, size: Operand, sink: int = 0) -> "Script":
        """Return bytes."""
        return self._add(bytes([13, sink]) + pack("<I", place) + _operand(size))

    def circumstances(self, place: int) -> "Script":
        """Put there who calls (32 bytes), the connection (16) and the time (8)."""
        return self._add(b"\x0e" + pack("<I", place))

    def add(self, place: int, *values: Operand) -> "Script":
        """Put a sum of two values there, as u64."""
        return self._add(b"\x10" + pack("<I", place) + b"".join(map(_operand, values)))

    # What is done often

    def text(self, text: bytes) -> "Script":
        """Return a text."""
        return self.put(DATA, text).say(DATA, len(text))

    def table(self, name: str) -> "Script":
        """Find a table by its name."""
        data = name.encode()
        return self.put(NAME, data).call("table_id_from_name", At(NAME), len(data), At(TABLE))

    def index(self, name: str) -> "Script":
        """Find an index by its name."""
        data = name.encode()
        return self.put(NAME, data).call("index_id_from_name", At(NAME), len(data), At(INDEX))

    def insert(self, table: str, row: bytes) -> "Script":
        """Insert a row; what is written back is at ROW, its length at LENGTH."""
        self.table(table).put(ROW, row).keep(LENGTH, len(row))
        return self.call("datastore_insert_bsatn", U32(TABLE), At(ROW), At(LENGTH))

    def update(self, table: str, index: str, row: bytes) -> "Script":
        """Update a row by a unique index."""
        self.table(table).index(index).put(ROW, row).keep(LENGTH, len(row))
        return self.call("datastore_update_bsatn", U32(TABLE), U32(INDEX), At(ROW), At(LENGTH))

    def rows(self, table: str) -> "Script":
        """Count the rows of a table; the number is the counter's."""
        return self.table(table).call("datastore_table_row_count", U32(TABLE), At(OUT)).count(U64(OUT))

    def scan(self, table: str) -> "Script":
        """Read a table: how many rows there are, and the rows, are at DATA, USED says how many bytes."""
        self.table(table).call("datastore_table_scan_bsatn", U32(TABLE), At(ITERATOR))
        self.drain(U32(ITERATOR), DATA).add(USED, U32(DATA), 4)
        self.call("datastore_table_row_count", U32(TABLE), At(OUT))
        return self.keep(DATA, U32(OUT))

    def point(self, index: str, key: bytes, function: str = "datastore_index_scan_point_bsatn") -> "Script":
        """Look for the rows of a key, or take them out; the iterator or how many there were is at OUT."""
        return self.index(index).put(KEY, key).call(function, U32(INDEX), At(KEY), len(key), At(OUT))

    def range(
        self,
        index: str,
        prefix: bytes,
        columns: int,
        lower: bytes,
        upper: bytes,
        function: str = "datastore_index_scan_range_bsatn",
    ) -> "Script":
        """Look for the rows of a range, or take them out; the iterator or how many there were is at OUT."""
        self.index(index).put(KEY, prefix).put(LOWER, lower).put(UPPER, upper)
        places = (At(KEY), len(prefix), columns, At(LOWER), len(lower), At(UPPER), len(upper), At(OUT))
        return self.call(function, U32(INDEX), *places)

    def _add(self, step: bytes) -> "Script":
        self._bytes += step
        return self


def _operand(value: Operand) -> bytes:
    match value:
        case int():
            return b"\0" + pack("<I", value) if value >= 0 and value < 1 << 32 else b"\3" + pack("<q", value)
        case At(place):
            return b"\1" + pack("<I", place)
        case U32(place):
            return b"\2" + pack("<I", place)
        case U64(place):
            return b"\4" + pack("<I", place)
        case Sink(position):
            return bytes([5, position])
        case Source(position):
            return bytes([6, position])
        case End(before):
            return b"\7" + pack("<I", before)
        case _Special(tag):
            return bytes([tag])


class Report(NamedTuple):
    """A row of `outp` without its number."""

    tag: str
    code: int
    counter: int
    data: bytes


class Guest:
    """A database that runs `calls.c`, and a client of it."""

    def __init__(self, host: Host, handle: DatabaseHandle) -> None:
        self.host = host
        self.handle = handle
        self.client = TestClient(handle, 1, 1)
        self._visitor = Client(identity(1), (77).to_bytes(16, "little"), "{}")
        self._seen = 0

    async def run(self, script: Script, reducer: str = "run") -> ReducerOutcome:
        """Run a script as a reducer; return how it ended."""
        return (await self.client.call(reducer, script.as_argument())).outcome

    async def procedure(self, script: Script, name: str = "prun") -> bytes | str:
        """Run a script as a procedure; return what it returned, or why it failed."""
        call = CallProcedure(5, name, script.as_argument())
        self.client.submit(call)
        received = self.client.sink.received
        while True:
            for message in received:
                if isinstance(message, ProcedureReturned | ProcedureFailed) and message.request is call:
                    return message.returned if isinstance(message, ProcedureReturned) else message.text
            await self.client.sink.wait_count(len(received) + 1)

    async def reports(self) -> list[Report]:
        """Return what was reported since this was asked last."""
        rows = sorted(await self.sql("SELECT * FROM outp"))
        new = [Report(*row[1:]) for row in rows if row[0] > self._seen]
        self._seen = max([self._seen, *(row[0] for row in rows)])
        return new

    async def ask(self, script: Script) -> list[Report]:
        """Run a script as a reducer that commits; return what it reported."""
        outcome = await self.run(script)
        assert outcome.kind == OutcomeKind.COMMITTED, outcome
        return await self.reports()

    async def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        return (await self.handle.sql(self._visitor, text)).rows

    def lines(self) -> list[dict[str, Any]]:
        """Return the module log."""
        return [json.loads(line) for line in b"".join(self.handle.log.tail(None)).splitlines()]

    def played(self) -> list[dict[str, Any]]:
        """Return the lines that the module's functions wrote."""
        return [line for line in self.lines() if line.get("target") != "__spacetimedb__"]


async def call(client: TestClient, reducer: str, *arguments: Any) -> tuple[int, str]:
    """Call a reducer with values; return how it ended and why."""
    definition = client.handle.definition
    position = definition.reducer_id(reducer)
    assert position is not None
    params = definition.reducers[position].params
    outcome = (await client.call(reducer, bsatn.codec(params, definition.typespace).encode(arguments))).outcome
    return outcome.kind, outcome.text


@asynccontextmanager
async def open_guest(program: bytes, runtime: str, limits: Limits = Limits()) -> AsyncIterator[Guest]:  # noqa: B008
    """Hold a database in memory that runs a program by one of the runtimes."""

    def load() -> Any:
        return load_wasm(program, virtual_now_us, runtime=RUNTIMES[runtime](engine()), limits=limits)

    async with open_host({program: load}) as host:
        published = await host.publish(identity(1), program, name="guest")
        handle = host.database(published.identity)
        await handle.ready()
        yield Guest(host, handle)


def play(
    program: bytes,
    runtime: str,
    check: Callable[[Guest], Awaitable[None]],
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> None:
    """Run a check of a program in a database, under virtual time."""

    async def main() -> None:
        with trio.fail_after(100_000):
            async with open_guest(program, runtime, limits) as guest:
                await check(guest)

    trio.run(main, clock=MockClock(autojump_threshold=0))
