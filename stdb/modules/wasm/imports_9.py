"""The functions of ABI 9.0, which modules of 0.11 import: tables, scans, filters, buffers, the log.

Responsible for: each function's signature, what it does, which error number it returns when (spec 04 section 9).
Not responsible for: how wasmtime calls them (`raw`, `public`), what filters say (`filters`), rules of tables.

Four failures have a number; everything else traps: rows that do not decode, bad handles, calls outside of a
transaction. Handles begin at 0. Columns are named by their positions; an index helps where there is one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from stdb.errors import DecodeError, DelayTooLong, UniqueViolation
from stdb.modules.wasm.chunks import chunks_of, fill_chunks
from stdb.modules.wasm.filters import row_filter
from stdb.modules.wasm.imports_10 import SINK_BYTES_MAX, Bytes, Console, Names, Writes
from stdb.modules.wasm.runtime import FunctionType, HostFunction, HostTrap
from stdb.modules.wasm.values_9 import checked_skip
from stdb.sats import keys
from stdb.sats.types import Element, Product

if TYPE_CHECKING:
    from stdb.modules.wasm.host import Host
    from stdb.modules.wasm.runtime import Imports
    from stdb.modules.wasm.tables import BoundTable

__all__ = ["MODULE", "NO_BUFFER", "Errno9", "functions"]

MODULE = "spacetime_9.0"
NO_BUFFER = 0xFFFFFFFF
"""The handle of no buffer: what functions of a guest return for success."""
BUFFERS_MAX = 1 << 16
"""Buffers that a guest may hold at a time."""
_NO_TRANSACTION = "this function needs a transaction: it is for reducers"


class Errno9:
    """Error numbers of ABI 9."""

    OK = 0
    NO_SUCH_TABLE = 1
    LOOKUP_NOT_FOUND = 2
    UNIQUE_ALREADY_EXISTS = 3
    BUFFER_TOO_SMALL = 4


def functions(host: "Host") -> "Imports":
    """Return the host functions of one guest, by module and name."""
    groups = (_Tables(host), _Rows(host), _Buffers(host), _Spans(host))
    found: dict[tuple[str, str], HostFunction] = {}
    for name, (function, count, has_result) in _NAMES.items():
        run = next(getattr(group, function) for group in groups if hasattr(group, function))
        type_ = FunctionType(("i32",) * count, ("i32",) if has_result else ())
        found[MODULE, name] = HostFunction(type_, run)
    return found


class _Tables(Names):
    """From names to ids."""

    __slots__ = ()

    def get_table_id(self, pointer: int, length: int, out: int) -> int:
        """Write the id of a table."""
        if self._open() is None:
            raise HostTrap(_NO_TRANSACTION)
        return Errno9.NO_SUCH_TABLE if self.table_id_from_name(pointer, length, out) else Errno9.OK

    def create_index(self, name: int, name_length: int, table_id: int, kind: int, columns: int, count: int) -> int:
        """Trap: a module of 0.9 or later declares its indexes, and none of them calls this."""
        shown = self._host.memory.text(name, name_length)
        raise HostTrap(
            f"index `{shown}` cannot be made by a reducer: declare it at the table {table_id} in the module's source"
        )


class _Rows(Writes):
    """Reading and changing rows."""

    __slots__ = ("_checks", "_finds")

    def __init__(self, host: "Host") -> None:
        super().__init__(host)
        self._checks: dict[int, Callable[[bytes, int], int]] = {}
        self._finds: dict[tuple[int, int], Callable[[bytes], list[bytes]]] = {}

    def iter_start(self, table_id: int, out: int) -> int:
        """Write an iterator over all rows of a table."""
        bound = self._readable(table_id)
        return Errno9.NO_SUCH_TABLE if bound is None else self._write_iterator(list(bound.table.rows()), out)

    def iter_start_filtered(self, table_id: int, pointer: int, length: int, out: int) -> int:
        """Write an iterator over the rows that a filter lets through."""
        bound = self._readable(table_id)
        if bound is None:
            return Errno9.NO_SUCH_TABLE
        try:
            is_wanted = row_filter(bound.table.schema.row_type, self._host.memory.read(pointer, length))
        except DecodeError as error:
            raise HostTrap(f"the filter of a scan of table `{bound.table.schema.name}` is none: {error}") from error
        return self._write_iterator(list(filter(is_wanted, bound.table.rows())), out)

    def iter_by_col_eq(self, table_id: int, column: int, pointer: int, length: int, out: int) -> int:
        """Write an iterator over the rows that have a value in a column."""
        bound = self._readable(table_id)
        if bound is None:
            return Errno9.NO_SUCH_TABLE
        return self._write_iterator(self._find_rows(bound, column, pointer, length), out)

    def _write_iterator(self, rows: list[bytes], out: int) -> int:
        self._host.memory.read(out, 4)  # a bad pointer makes no iterator
        self._host.memory.write_u32(out, self._add(chunks_of(rows)) - 1)
        return Errno9.OK

    def iter_advance(self, iterator: int, buffer: int, length_at: int) -> int:
        """Fill a buffer with whole chunks; write how much it was: nothing at the end, where the iterator stays."""
        chunks = self._find(iterator + 1)
        if chunks is None:
            raise HostTrap(f"there is no iterator {iterator}")
        if not fill_chunks(self._host.memory, chunks, buffer, length_at):
            return Errno9.BUFFER_TOO_SMALL
        return Errno9.OK

    def iter_drop(self, iterator: int) -> None:
        """Drop an iterator."""
        if self._take(iterator + 1) is None:
            raise HostTrap(f"there is no iterator {iterator}")

    def insert_whole(self, table_id: int, pointer: int, length: int) -> int:
        """Put in a row; write back all of it, what was generated included."""
        bound = self._writable(table_id)
        if bound is None:
            return Errno9.NO_SUCH_TABLE
        memory = self._host.memory
        row = memory.read(pointer, length)
        try:
            self._check_row(bound, row)
            if bound.schedule is not None:
                bound.schedule.check_delay(row, self._host.now_us())
            stored = bound.insert(row)
        except UniqueViolation:
            return Errno9.UNIQUE_ALREADY_EXISTS
        except (DecodeError, DelayTooLong) as error:
            raise HostTrap(f"a row for table `{bound.table.schema.name}` cannot be stored: {error}") from error
        if stored is not row:
            memory.write(pointer, stored)
        return Errno9.OK

    def delete_by_col_eq(self, table_id: int, column: int, pointer: int, length: int, out: int) -> int:
        """Take out the rows that have a value in a column; write how many there were."""
        bound = self._writable(table_id)
        if bound is None:
            return Errno9.NO_SUCH_TABLE
        rows = self._find_rows(bound, column, pointer, length)
        self._host.memory.write_u32(out, len(rows))  # a bad pointer changes nothing
        table = bound.table
        for row in rows:
            table.delete_key(table.key_of(row))
        return Errno9.OK

    def delete_by_rel(self, table_id: int, pointer: int, length: int, out: int) -> int:
        """Take out rows by their full values; write how many there were."""
        bound = self._writable(table_id)
        if bound is None:
            return Errno9.NO_SUCH_TABLE
        memory = self._host.memory
        try:
            rows = bound.rows_of(memory.read(pointer, length))
        except DecodeError as error:
            raise HostTrap(f"rows of table `{bound.table.schema.name}` do not decode: {error}") from error
        memory.read(out, 4)
        memory.write_u32(out, sum(map(bound.table.delete, rows)))
        return Errno9.OK

    def _readable(self, table_id: int) -> "BoundTable | None":
        tables = self._open()
        if tables is None:
            raise HostTrap(_NO_TRANSACTION)
        return tables.by_id.get(table_id)

    def _writable(self, table_id: int) -> "BoundTable | None":
        bound = self._readable(table_id)
        return None if bound is None or bound.is_system else bound

    def _check_row(self, bound: "BoundTable", row: bytes) -> None:
        check = self._checks.get(bound.id)
        if check is None:
            check = self._checks[bound.id] = checked_skip(bound.table.schema.row_type)
        if check(row, 0) != len(row):
            raise DecodeError(f"{len(row)} bytes are more than one value", len(row))

    def _find_rows(self, bound: "BoundTable", column: int, pointer: int, length: int) -> list[bytes]:
        find = self._finds.get((bound.id, column))
        if find is None:
            find = self._finds[bound.id, column] = self._finder(bound, column)
        value = self._host.memory.read(pointer, length)
        try:
            return find(value)
        except DecodeError as error:
            where = f"column {column} of table `{bound.table.schema.name}`"
            raise HostTrap(f"{value[:32].hex()} is no value of {where}: {error}") from error

    def _finder(self, bound: "BoundTable", column: int) -> Callable[[bytes], list[bytes]]:
        """Return what finds the rows with a value in a column, given its BSATN. It raises DecodeError."""
        table, row_type = bound.table, bound.table.schema.row_type
        if column >= len(row_type.elements):
            raise HostTrap(f"table `{table.schema.name}` has no column {column}")
        index = table.index_on((column,))
        if index is not None:
            tables = self._host.tables
            assert tables is not None, "the table is one of them"
            found = tables.indexes.get(index.id)
            if found is not None:
                point, find_all = found.point, found.find_all
                return lambda value: list(find_all(point(value)))
        only = Product((Element(None, row_type.elements[column].type),))
        skip, key_of, key_in = checked_skip(only), keys.row_key(only, (0,)), keys.row_key(row_type, (column,))

        def find(value: bytes) -> list[bytes]:
            if skip(value, 0) != len(value):
                raise DecodeError(f"{len(value)} bytes are more than one value", len(value))
            wanted = key_of(value)
            return [row for row in table.rows() if key_in(row) == wanted]

        return find


class _Buffers(Bytes):
    """Bytes that host and guest hand each other."""

    __slots__ = ()

    def buffer_alloc(self, pointer: int, length: int) -> int:
        """Return a buffer with a copy of bytes."""
        sources = self._handles.sources
        held = sum(len(source.data) for source in sources.values())
        if len(sources) >= BUFFERS_MAX or held + length > SINK_BYTES_MAX:
            raise HostTrap(f"a call holds more than {BUFFERS_MAX} buffers, or more than {SINK_BYTES_MAX} bytes in them")
        return self._handles.add_value(self._host.memory.read(pointer, length)) - 1

    def buffer_len(self, buffer: int) -> int:
        """Return how many bytes a buffer has."""
        return len(self._buffer(buffer))

    def buffer_consume(self, buffer: int, pointer: int, length: int) -> None:
        """Write a buffer's bytes, all of them, and drop it."""
        data = self._buffer(buffer)
        if length != len(data):
            raise HostTrap(f"buffer {buffer} has {len(data)} bytes, not {length}: take all of them")
        self._host.memory.write(pointer, data)
        del self._handles.sources[buffer + 1]

    def _buffer(self, buffer: int) -> bytes:
        found = self._handles.sources.get(buffer + 1)
        if found is None:
            raise HostTrap(f"there is no buffer {buffer}")
        return found.data


class _Spans(Console):
    """The log."""

    __slots__ = ()

    def span_start(self, pointer: int, length: int) -> int:
        """Return a timer."""
        return self.timer_start(pointer, length) - 1

    def span_end(self, span: int) -> None:
        """Write a line that says how long ago a timer was started."""
        if self.timer_end(span + 1):
            raise HostTrap(f"there is no span {span}")


_NAMES: dict[str, tuple[str, int, bool]] = {
    "_get_table_id": ("get_table_id", 3, True),
    "_create_index": ("create_index", 6, True),
    "_iter_by_col_eq": ("iter_by_col_eq", 5, True),
    "_insert": ("insert_whole", 3, True),
    "_delete_by_col_eq": ("delete_by_col_eq", 5, True),
    "_delete_by_rel": ("delete_by_rel", 4, True),
    "_iter_start": ("iter_start", 2, True),
    "_iter_start_filtered": ("iter_start_filtered", 4, True),
    "_iter_advance": ("iter_advance", 3, True),
    "_iter_drop": ("iter_drop", 1, False),
    "_console_log": ("log", 8, False),
    "_volatile_nonatomic_schedule_immediate": ("schedule_immediate", 4, False),
    "_buffer_alloc": ("buffer_alloc", 2, True),
    "_buffer_len": ("buffer_len", 1, True),
    "_buffer_consume": ("buffer_consume", 3, False),
    "_span_start": ("span_start", 2, True),
    "_span_end": ("span_end", 1, False),
}
"""Which method each function is, how many i32 it takes, whether it returns one."""
