"""The functions of ABI 10.0 to 10.5 that need no waiting: tables, scans, writes, bytes, the log.

Responsible for: each function's signature, what it does, which error number it returns when (spec 04 section 3).
Not responsible for: how wasmtime calls them (`raw`, `public`), functions of procedures (`waiting`), rules of tables.

Every function takes unsigned integers; those with a result return an error number, 0 for success. Pointers are checked
by `LinearMemory`. Rows and keys are checked here: a table takes valid BSATN for granted.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING

from stdb.errors import DecodeError, DelayTooLong, NoSuchIndex, NoSuchRow, ReducerTimeout, UniqueViolation
from stdb.modules.protocol import LogLevel
from stdb.modules.wasm.chunks import chunks_of, fill_chunks
from stdb.modules.wasm.host import Panic
from stdb.modules.wasm.runtime import EXHAUSTED, FunctionType, HostFunction, HostTrap
from stdb.schema.system_tables import SYSTEM_INDEX_IDS

if TYPE_CHECKING:
    from stdb.modules.wasm.host import Host
    from stdb.modules.wasm.runtime import Imports
    from stdb.modules.wasm.tables import BoundIndex, BoundTable, Tables

__all__ = ["Errno", "functions"]


class Errno:
    """Error numbers of ABI 10 (spec 04 section 2.1)."""

    OK = 0
    HOST_CALL_FAILURE = 1
    NOT_IN_TRANSACTION = 2
    BSATN_DECODE_ERROR = 3
    NO_SUCH_TABLE = 4
    NO_SUCH_INDEX = 5
    NO_SUCH_ITER = 6
    NO_SUCH_CONSOLE_TIMER = 7
    NO_SUCH_BYTES = 8
    NO_SPACE = 9
    WRONG_INDEX_ALGO = 10
    BUFFER_TOO_SMALL = 11
    UNIQUE_ALREADY_EXISTS = 12
    SCHEDULE_AT_DELAY_TOO_LONG = 13
    INDEX_NOT_UNIQUE = 14
    NO_SUCH_ROW = 15
    WOULD_BLOCK_TRANSACTION = 17
    TRANSACTION_NOT_ANONYMOUS = 18
    HTTP_ERROR = 21


OK, NOT_IN_TRANSACTION = Errno.OK, Errno.NOT_IN_TRANSACTION
_LEVELS = {
    0: LogLevel.ERROR,
    1: LogLevel.WARN,
    2: LogLevel.INFO,
    3: LogLevel.DEBUG,
    4: LogLevel.TRACE,
    101: LogLevel.PANIC,
}
_NO_LINE = 0xFFFFFFFF
_COLUMNS_MAX = 0xFFFF
_ENVIRONMENT_INDEX_ID = SYSTEM_INDEX_IDS["st_env_key_idx_btree"]
_READ_ONLY = "a view only reads; write in a reducer"


def functions(host: "Host") -> "Imports":
    """Return the host functions of one guest, by module and name."""
    groups = (Names(host), Writes(host), Bytes(host), Console(host))
    found: dict[tuple[str, str], HostFunction] = {}
    for (module, name), (function, count, has_result) in _NAMES.items():
        run = next(getattr(group, function) for group in groups if hasattr(group, function))
        type_ = FunctionType(("i32",) * count, ("i32",) if has_result else ())
        found[f"spacetime_{module}", name] = HostFunction(type_, run)
    return found


class _Group:
    """Functions that share a host."""

    __slots__ = ("_handles", "_host")

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._handles = host.handles

    def _open(self) -> "Tables | None":
        """Return the tables, None where none may be reached. Raises ReducerTimeout."""
        expiry = self._host.expiry
        if expiry is None:
            return None
        if expiry.expired:
            raise ReducerTimeout("the time limit of this call has passed")
        return self._host.tables


class Names(_Group):
    """From names to ids."""

    __slots__ = ()

    def table_id_from_name(self, pointer: int, length: int, out: int) -> int:
        """Write the id of a table."""
        return self._write_id(_table_ids, Errno.NO_SUCH_TABLE, pointer, length, out)

    def index_id_from_name(self, pointer: int, length: int, out: int) -> int:
        """Write the id of an index."""
        return self._write_id(_index_ids, Errno.NO_SUCH_INDEX, pointer, length, out)

    def _write_id(
        self, ids: "Callable[[Tables], dict[str, int]]", missing: int, pointer: int, length: int, out: int
    ) -> int:
        """Write the id that a name has; `missing` is the error number where there is none."""
        name = self._host.memory.text(pointer, length)
        tables = self._open()
        if tables is None:
            return Errno.NOT_IN_TRANSACTION
        number = ids(tables).get(name)
        if number is None:
            return missing
        self._host.memory.write_u32(out, number)
        return Errno.OK


_table_ids, _index_ids = attrgetter("ids"), attrgetter("index_ids")


class Scans(_Group):
    """Reading rows."""

    __slots__ = ("_add", "_find", "_take")

    def __init__(self, host: "Host") -> None:
        super().__init__(host)
        iterators = host.handles.iterators
        self._add, self._find, self._take = iterators.add, iterators.get, iterators.take

    def row_count(self, table_id: int, out: int) -> int:
        """Write how many rows a table has, as u64."""
        bound = self._whole(table_id)
        if isinstance(bound, int):
            return bound
        self._host.memory.write_u64(out, len(bound.table))
        return OK

    def table_scan(self, table_id: int, out: int) -> int:
        """Write an iterator over all rows of a table."""
        bound = self._whole(table_id)
        if isinstance(bound, int):
            return bound
        self._host.memory.write_u32(out, self._add(chunks_of(bound.table.rows())))
        return OK

    def _whole(self, table_id: int) -> "BoundTable | int":
        """Return a table that is read as a whole, which a view notes; or an error number."""
        tables = self._open()
        if tables is None:
            return Errno.NOT_IN_TRANSACTION
        bound = tables.by_id.get(table_id)
        if bound is None:
            return Errno.NO_SUCH_TABLE
        if self._host.reads is not None:
            self._host.reads.tables.add(table_id)
        return bound

    def point_scan(self, index_id: int, pointer: int, length: int, out: int) -> int:
        """Write an iterator over the rows that have a key."""
        host = self._host
        expiry = host.expiry
        if expiry is None:
            return NOT_IN_TRANSACTION
        if expiry.expired:
            self._open()
        bound = host.tables.indexes.get(index_id)  # type: ignore[union-attr]  # open, so attached
        if bound is None:
            return _no_index(index_id)
        memory = host.memory
        data = memory.read(pointer, length)
        if length == bound.point_size:
            key = bound.key_of(data)
        else:
            try:
                key = bound.point(data)
            except DecodeError:
                return Errno.BSATN_DECODE_ERROR
        if host.reads is not None:
            host.reads.add_key(bound.table.id, index_id, key)
        find = bound.find
        if find is not None:
            row = find(key)
            chunks = [] if row is None else [row]
        else:
            chunks = chunks_of(bound.find_all(key))
        memory.write_u32(out, self._add(chunks))
        return OK

    def range_scan(self, index_id: int, prefix: int, prefix_length: int, count: int, *bounds: int) -> int:
        """Write an iterator over the rows of a range, in key order."""
        rows = self._rows_of(index_id, prefix, prefix_length, count, *bounds[:4])
        if isinstance(rows, int):
            return rows
        self._host.memory.write_u32(bounds[4], self._add(chunks_of(rows)))
        return Errno.OK

    def _rows_of(self, index_id: int, prefix: int, prefix_length: int, count: int, *bounds: int) -> "list[bytes] | int":
        """Return the rows of a range, or an error number."""
        tables = self._open()
        if tables is None:
            return Errno.NOT_IN_TRANSACTION
        if count > _COLUMNS_MAX:
            raise HostTrap(f"{count} is no number of columns")
        memory = self._host.memory
        start = memory.read(prefix, prefix_length) if count else b""
        lower, upper = memory.read(bounds[0], bounds[1]), memory.read(bounds[2], bounds[3])
        bound = tables.indexes.get(index_id)
        if bound is None:
            return _no_index(index_id)
        try:
            span = bound.range(start, count, lower, upper)
            rows = bound.index.scan(*span)
        except DecodeError:
            return Errno.BSATN_DECODE_ERROR
        except NoSuchIndex:
            return Errno.WRONG_INDEX_ALGO
        reads = self._host.reads
        if reads is not None:
            point = bound.is_point(*span)
            if point is None:
                reads.tables.add(bound.table.id)
            else:
                reads.add_key(bound.table.id, index_id, point[0])
        return rows

    def advance(self, iterator: int, buffer: int, length_at: int) -> int:
        """Fill a buffer with whole chunks; write how much it was, or how much the next one takes."""
        chunks = self._find(iterator)
        if chunks is None:
            return Errno.NO_SUCH_ITER
        if len(chunks) == 1 and self._host.memory.fill(buffer, chunks[0], length_at):  # most of them
            self._take(iterator)
            return EXHAUSTED
        if not fill_chunks(self._host.memory, chunks, buffer, length_at):
            return Errno.BUFFER_TOO_SMALL
        if chunks:
            return Errno.OK
        self._take(iterator)
        return EXHAUSTED

    def close(self, iterator: int) -> int:
        """Drop an iterator."""
        return Errno.NO_SUCH_ITER if self._take(iterator) is None else Errno.OK


class Writes(Scans):
    """Changing rows."""

    __slots__ = ()

    def _table(self, table_id: int) -> "BoundTable | int":
        tables = self._open()
        if tables is None:
            return Errno.NOT_IN_TRANSACTION
        bound = tables.by_id.get(table_id)
        if bound is None or bound.is_system:
            return Errno.NO_SUCH_TABLE
        if not self._host.can_write:
            raise HostTrap(_READ_ONLY)
        return bound

    def insert(self, table_id: int, pointer: int, length_at: int) -> int:
        """Put in a row; write back what was generated for it."""
        bound = self._table(table_id)
        if isinstance(bound, int):
            return bound
        memory = self._host.memory
        row = memory.read_sized(pointer, length_at)
        return self._written(bound, bound.insert, row, pointer, length_at)

    def update(self, table_id: int, index_id: int, pointer: int, length_at: int) -> int:
        """Replace the row with the same key in a unique index; write back what was generated."""
        host = self._host
        expiry, tables = host.expiry, host.tables
        if expiry is None or expiry.expired or not host.can_write or tables is None:
            refused = self._table(table_id)
            assert isinstance(refused, int), "nothing may be written"
            return refused
        index = tables.indexes.get(index_id)
        if index is None or index.table.id != table_id:
            bound = self._table(table_id)
            return bound if isinstance(bound, int) else Errno.NO_SUCH_INDEX
        update = index.update
        if update is None:
            return Errno.INDEX_NOT_UNIQUE
        row = host.memory.read_sized(pointer, length_at)
        if len(row) != index.table.plain_size:
            return self._written(index.table, update, row, pointer, length_at)
        try:
            update(row)
        except UniqueViolation:
            return Errno.UNIQUE_ALREADY_EXISTS
        except NoSuchRow:
            return Errno.NO_SUCH_ROW
        host.memory.write_u32(length_at, 0)
        return OK

    def _written(
        self, bound: "BoundTable", write: Callable[[bytes], bytes], row: bytes, pointer: int, length_at: int
    ) -> int:
        try:
            row = bound.whole(row)
            if bound.schedule is not None:
                bound.schedule.check_delay(row, self._host.now_us())
            stored = write(row)
        except DecodeError:
            return Errno.BSATN_DECODE_ERROR
        except UniqueViolation:
            return Errno.UNIQUE_ALREADY_EXISTS
        except DelayTooLong:
            return Errno.SCHEDULE_AT_DELAY_TOO_LONG
        except NoSuchRow:
            return Errno.NO_SUCH_ROW
        memory = self._host.memory
        if bound.generated is None:
            memory.write_u32(length_at, 0)
            return OK
        generated = bound.generated(row, stored)
        if generated:
            memory.write(pointer, generated)
        memory.write_u32(length_at, len(generated))
        return OK

    def delete_all_by_eq(self, table_id: int, pointer: int, length: int, out: int) -> int:
        """Take out rows by their full values; write how many there were."""
        bound = self._table(table_id)
        if isinstance(bound, int):
            return bound
        try:
            rows = bound.rows_of(self._host.memory.read(pointer, length))
        except DecodeError:
            return Errno.BSATN_DECODE_ERROR
        count = sum(map(bound.table.delete, rows))
        self._host.memory.write_u32(out, count)
        return Errno.OK

    def clear(self, table_id: int, out: int) -> int:
        """Take out all rows; write how many there were, as u64."""
        bound = self._table(table_id)
        if isinstance(bound, int):
            return bound
        self._host.memory.write_u64(out, bound.table.clear())
        return Errno.OK

    def delete_point(self, index_id: int, pointer: int, length: int, out: int) -> int:
        """Take out the rows that have a key; write how many there were."""
        tables = self._open()
        if tables is None:
            return Errno.NOT_IN_TRANSACTION
        index = tables.indexes.get(index_id)
        if index is None:
            return _no_index(index_id)
        try:
            key = index.point(self._host.memory.read(pointer, length))
        except DecodeError:
            return Errno.BSATN_DECODE_ERROR
        return self._delete(index, index.find_all(key), out)

    def delete_range(self, index_id: int, prefix: int, prefix_length: int, count: int, *bounds: int) -> int:
        """Take out the rows of a range; write how many there were."""
        rows = self._rows_of(index_id, prefix, prefix_length, count, *bounds[:4])
        if isinstance(rows, int):
            return rows
        tables = self._host.tables
        assert tables is not None, "rows were found in them"
        return self._delete(tables.indexes[index_id], rows, bounds[4])

    def _delete(self, index: "BoundIndex", rows: list[bytes], out: int) -> int:
        if not self._host.can_write:
            raise HostTrap(_READ_ONLY)
        self._host.memory.write_u32(out, len(rows))  # a bad pointer changes nothing
        table = index.table.table
        for row in rows:
            table.delete_key(table.key_of(row))
        return Errno.OK


class Bytes(_Group):
    """Bytes in and out, and who we are."""

    __slots__ = ()

    def source_read(self, source: int, buffer: int, length_at: int) -> int:
        """Fill a buffer from a source; write how much it was."""
        found = self._handles.sources.get(source)
        if found is None:
            return Errno.NO_SUCH_BYTES
        memory = self._host.memory
        data, start = found.data, found.position
        if not start and memory.fill(buffer, data, length_at):  # most of them
            del self._handles.sources[source]
            return EXHAUSTED
        end = min(start + memory.read_u32(length_at), len(data))
        memory.write(buffer, data[start:end])
        memory.write_u32(length_at, end - start)
        found.position = end
        if end < len(data):
            return Errno.OK
        del self._handles.sources[source]
        return EXHAUSTED

    def source_remaining(self, source: int, out: int) -> int:
        """Write how much is left of a source."""
        found = self._handles.sources.get(source)
        if found is None:
            return Errno.NO_SUCH_BYTES
        self._host.memory.write_u32(out, len(found.data) - found.position)
        return Errno.OK

    def sink_write(self, sink: int, buffer: int, length_at: int) -> int:
        """Take all of a buffer."""
        memory = self._host.memory
        data = memory.read_sized(buffer, length_at)
        found = self._handles.sinks.get(sink)
        if found is None:
            return Errno.NO_SUCH_BYTES
        if len(found) + len(data) > SINK_BYTES_MAX:
            raise HostTrap(f"a function returned more than {SINK_BYTES_MAX} bytes")
        found += data
        return Errno.OK

    def identity(self, out: int) -> None:
        """Write the identity of the database."""
        self._host.memory.write(out, self._host.identity)

    def get_jwt(self, connection_at: int, out: int) -> int:
        """Write a source with the payload of the token that a connection came with; 0 where there is none."""
        connection = int.from_bytes(self._host.memory.read(connection_at, 16), "little")
        tables = self._open()
        if tables is None:
            return Errno.NOT_IN_TRANSACTION
        table = tables.datastore.table("st_connection_credentials")
        row = table.stored.get(connection)
        payload = b"" if row is None else table.schema.codec.decode_exact(row)[1].encode()
        self._host.memory.write_u32(out, self._handles.add_source(payload))
        return Errno.OK

    def schedule_immediate(self, name_at: int, name_length: int, args_at: int, args_length: int) -> None:
        """Queue a call of a function, whatever becomes of this one."""
        memory = self._host.memory
        name, args = memory.text(name_at, name_length), memory.read(args_at, args_length)
        if self._host.immediate is not None:
            self._host.immediate(name, args)


class Console(_Group):
    """The log."""

    __slots__ = ()

    def log(self, level: int, *rest: int) -> None:
        """Write a line; one that lies outside the memory is dropped. A panic's line waits for what follows."""
        target, target_length, filename, filename_length, line, message, message_length = rest
        host, name = self._host, _LEVELS.get(level & 0xFF, LogLevel.DEBUG)
        sink, text = host.log, host.memory.lossy_text
        if sink is None:
            return
        try:
            panic = Panic(
                text(message, message_length) or "",
                text(target, target_length),
                text(filename, filename_length),
                None if line == _NO_LINE else line,
            )
        except HostTrap:
            return
        host.write_panic()
        if name == LogLevel.PANIC:
            host.panic = panic
        else:
            what, target_name, file, number = panic
            sink.write(name, what, target=target_name, filename=file, line=number, function=host.function)

    def timer_start(self, pointer: int, length: int) -> int:
        """Return a timer."""
        return self._handles.timers.add((self._host.memory.text(pointer, length), self._host.now_us()))

    def timer_end(self, timer: int) -> int:
        """Write a line that says how long ago a timer was started."""
        found = self._handles.timers.take(timer)
        if found is None:
            return Errno.NO_SUCH_CONSOLE_TIMER
        name, started_us = found
        if self._host.log is not None:
            self._host.write_panic()
            text = f"Timing span {_quoted(name)}: {_duration(self._host.now_us() - started_us)}"
            self._host.log.write(LogLevel.INFO, text, function=self._host.function)
        return Errno.OK


SINK_BYTES_MAX = 256 << 20
"""As much as one call may return."""

_NAMES: dict[tuple[str, str], tuple[str, int, bool]] = {
    ("10.0", "table_id_from_name"): ("table_id_from_name", 3, True),
    ("10.0", "index_id_from_name"): ("index_id_from_name", 3, True),
    ("10.0", "datastore_table_row_count"): ("row_count", 2, True),
    ("10.0", "datastore_table_scan_bsatn"): ("table_scan", 2, True),
    ("10.0", "datastore_index_scan_range_bsatn"): ("range_scan", 9, True),
    ("10.0", "datastore_btree_scan_bsatn"): ("range_scan", 9, True),
    ("10.0", "datastore_delete_by_index_scan_range_bsatn"): ("delete_range", 9, True),
    ("10.0", "datastore_delete_by_btree_scan_bsatn"): ("delete_range", 9, True),
    ("10.0", "datastore_delete_all_by_eq_bsatn"): ("delete_all_by_eq", 4, True),
    ("10.0", "row_iter_bsatn_advance"): ("advance", 3, True),
    ("10.0", "row_iter_bsatn_close"): ("close", 1, True),
    ("10.0", "datastore_insert_bsatn"): ("insert", 3, True),
    ("10.0", "datastore_update_bsatn"): ("update", 4, True),
    ("10.0", "volatile_nonatomic_schedule_immediate"): ("schedule_immediate", 4, False),
    ("10.0", "bytes_sink_write"): ("sink_write", 3, True),
    ("10.0", "bytes_source_read"): ("source_read", 3, True),
    ("10.0", "console_log"): ("log", 8, False),
    ("10.0", "console_timer_start"): ("timer_start", 2, True),
    ("10.0", "console_timer_end"): ("timer_end", 1, True),
    ("10.0", "identity"): ("identity", 1, False),
    ("10.1", "bytes_source_remaining_length"): ("source_remaining", 2, True),
    ("10.2", "get_jwt"): ("get_jwt", 2, True),
    ("10.4", "datastore_index_scan_point_bsatn"): ("point_scan", 4, True),
    ("10.4", "datastore_delete_by_index_scan_point_bsatn"): ("delete_point", 4, True),
    ("10.5", "datastore_clear"): ("clear", 2, True),
}
"""Where each function is imported from, which method it is, how many i32 it takes, whether it returns one."""


def _no_index(index_id: int) -> int:
    """Return the error number for an index that guests do not have; that of `st_env` is none of theirs either."""
    return Errno.NO_SUCH_TABLE if index_id == _ENVIRONMENT_INDEX_ID else Errno.NO_SUCH_INDEX


def _quoted(text: str) -> str:
    """Return a text as Rust's debug format shows it, for the characters that names are made of."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _duration(duration_us: int) -> str:
    """Return a duration as Rust's debug format shows it."""
    for unit, size in (("s", 1_000_000), ("ms", 1_000)):
        if duration_us >= size:
            return f"{duration_us / size:.9f}".rstrip("0").rstrip(".") + unit
    return f"{duration_us}µs"
