"""Programs: the row of `st_module` that says what a database runs.

Responsible for: writing and reading that row, the rules of a new database, what stands for a program that cannot load.
Not responsible for: who may publish (`host`), loading code (`stdb.modules`), running `init` (`launching`), updates
(`updates`).
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from stdb.actors.refusals import PublishFailed
from stdb.datastore.datastore import Datastore
from stdb.errors import SchemaError, StorageError
from stdb.modules.protocol import (
    HttpRequest,
    HttpResponse,
    LogSink,
    Module,
    ProcedureCall,
    ReducerCall,
    RouteCall,
    ViewCall,
    ViewSql,
)
from stdb.sats.types import Typespace
from stdb.schema.model import ModuleDef, RowLevelSecurityDef
from stdb.sql.rules import replace_rules

__all__ = [
    "WASM_MAGIC",
    "StoredProgram",
    "TablesOnly",
    "host_type_of",
    "move_program",
    "store_program",
    "store_rules",
    "stored_program",
]

WASM, PYTHON = 0, 2
"""`st_module.program_kind` of a WebAssembly module (spec 04 section 12) and of a Python module (spec 08)."""
WASM_MAGIC = b"\0asm"


class StoredProgram(NamedTuple):
    """What a database runs, and for whom; identities and hash are 32 bytes."""

    identity: bytes
    owner: bytes
    program_hash: bytes
    program: bytes


def store_rules(datastore: Datastore, rules: Iterable[RowLevelSecurityDef]) -> None:
    """Write the rules of row-level security of a new database, within the open transaction.

    Raises:
        PublishFailed: A rule is none.
    """
    try:
        replace_rules(datastore, rules)
    except SchemaError as error:
        raise PublishFailed("\n".join(error.errors)) from error


def store_program(datastore: Datastore, module: Module, program: bytes, identity: bytes, owner: bytes) -> None:
    """Write the row that says what a database runs, within the open transaction."""
    table = datastore.table("st_module")
    kind = WASM if program.startswith(WASM_MAGIC) else PYTHON
    values = (_u256(identity), _u256(owner), kind, _u256(module.program_hash), program, "")
    table.insert(table.schema.codec.encode(values))


def stored_program(datastore: Datastore) -> StoredProgram:
    """Return what the database runs.

    Raises:
        StorageError: That is not stored, or nothing that this server can run.
    """
    table = datastore.table("st_module")
    rows = list(table.rows())
    if len(rows) != 1:
        raise StorageError("the log holds no program: it does not begin with the publishing of a database")
    identity, owner, kind, program_hash, program, _ = table.schema.codec.decode_exact(rows[0])
    if kind not in (WASM, PYTHON):
        raise StorageError(
            f"the program is of kind {kind}, this server runs kinds {WASM} (WebAssembly) and {PYTHON} (Python)"
        )
    return StoredProgram(_bytes(identity), _bytes(owner), _bytes(program_hash), bytes(program))


def host_type_of(program: bytes) -> str:
    """Return what the control store calls the kind of a program."""
    return "Wasm" if program.startswith(WASM_MAGIC) else "Python"


def move_program(datastore: Datastore, identity: bytes, owner: bytes) -> None:
    """Let the program's row be for another database and owner, within the open transaction."""
    table = datastore.table("st_module")
    (row,) = table.rows()
    values = table.schema.codec.decode_exact(row)
    table.delete(row)
    table.insert(table.schema.codec.encode((_u256(identity), _u256(owner), *values[2:])))


class TablesOnly:
    """Stands for a program that cannot be loaded: its tables as they are stored, and no functions."""

    program_hash = b""

    def __init__(self, datastore: Datastore) -> None:
        stored = (table.schema for table in datastore.tables.values())
        self.definition = ModuleDef(
            Typespace.EMPTY, tuple(schema.definition for schema in stored if not schema.is_system)
        )

    def attach(self, datastore: Datastore, database_identity: bytes, log: LogSink) -> None:
        """Do nothing."""

    def reducer(self, reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
        """Raise LookupError: there are no reducers."""
        raise _no("reducer", reducer_id)

    def view(self, position: int) -> Callable[[ViewCall], list[bytes] | ViewSql]:
        """Raise LookupError: there are no views."""
        raise _no("view", position)

    def procedure(self, procedure_id: int) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
        """Raise LookupError: there are no procedures."""
        raise _no("procedure", procedure_id)

    def route(self, position: int) -> Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]:
        """Raise LookupError: there are no routes."""
        raise _no("route", position)


def _no(kind: str, place: int) -> LookupError:
    return LookupError(f"no {kind} {place}: this program has no functions")


def _u256(number: bytes) -> int:
    return int.from_bytes(number, "little")


def _bytes(number: int) -> bytes:
    return number.to_bytes(32, "little")
