"""PythonModule: a loaded program that a database calls.

Responsible for: the `Module` of `stdb.modules.protocol`: binding to tables, entries of reducers, sorting failures.
Not responsible for: loading (`loader`), transactions and deadlines (`actors`).

Source: spec 08, "Functions"; spec 04 section 7.
"""

import ast
import collections
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from stdb.errors import DecodeError, ModuleFault, ReducerError, ReducerTimeout
from stdb.modules.protocol import ReducerCall
from stdb.modules.python.accessors import make_table
from stdb.modules.python.blocking import unwatch
from stdb.modules.python.context import ReducerContext
from stdb.modules.python.database import Database, make_database
from stdb.modules.python.declarations import Place
from stdb.modules.python.definition import BuiltReducer, Program
from stdb.modules.python.output import Output, describe_failure, failure_place, failure_text
from stdb.modules.python.query import Access
from stdb.modules.python.table import Binding
from stdb.sats import bsatn
from stdb.sats.objects import ObjectShape
from stdb.sats.types import Typespace

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.modules.protocol import LogSink
    from stdb.modules.python.importer import Version
    from stdb.schema.model import ModuleDef

__all__ = ["FATAL", "PythonModule"]

_MUTABLE = (list, dict, set, bytearray, collections.deque)
_STATE = (
    "module-level state `{name}` ({kind}) is not rolled back with a failed call and not kept over a restart: "
    "keep it in a table, or make it a constant (tuple, frozenset)"
)
FATAL = "The instance encountered a fatal error."
"""What a caller learns when a module breaks."""


class _Bound:
    """What entries need of the database that the module is attached to."""

    __slots__ = ("database", "identity")
    database: Database
    identity: bytes


class PythonModule:
    """A loaded Python program. One instance belongs to one database and is called from one thread."""

    def __init__(self, program: Program, version: "Version", output: Output, program_hash: bytes) -> None:
        self.definition: ModuleDef = program.definition
        self.program_hash = program_hash
        self.name = version.name
        self._program = program
        self._version = version
        self._output = output
        self._bound = _Bound()
        self._has_warned = False
        weakref.finalize(self, _unload, version, output).atexit = False

    def attach(self, datastore: "Datastore", database_identity: bytes, log: "LogSink") -> None:
        """Bind to the tables of a database; called once before the first call and again after a schema change."""
        self._output.attach(log)
        if not self._has_warned:
            self._has_warned = True
            for place, text in mutable_state(self._version):
                self._output.warn_once(place, text)
        tables: dict[Any, Any] = {}
        names: dict[str, Any] = {}
        for built in self._program.tables:
            declaration = built.declaration
            stored = datastore.table(declaration.name)
            assert stored is not None, f"table {declaration.name} is created before the module is attached"
            assert isinstance(built.row.shape, ObjectShape)
            codec = bsatn.object_codec(stored.schema.row_type, built.row.shape)
            access = Access(stored, built.row.shape, declaration.shape)
            binding = Binding(datastore, stored, access, codec, declaration.shape.row_class, self._output)
            tables[declaration.key] = names[declaration.name] = make_table(binding)
        self._bound.database = make_database(tables, names)
        self._bound.identity = database_identity

    def reducer(self, reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
        """Return the entry of a reducer; see `stdb.modules.protocol.Module`. It serves every later attachment too."""
        reducer = self._program.reducers[reducer_id]
        decode = _argument_decoder(reducer, self.definition.typespace)
        function, name = reducer.declaration.function, reducer.declaration.name
        output, bound = self._output, self._bound

        def run(call: ReducerCall, args: bytes) -> None:
            values = decode(args)[0]
            output.function = name
            try:
                function(ReducerContext(bound.database, call, bound.identity), *values)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it must not bring the server down
                _raise_sorted(error, call)
            if call.transaction.expired:
                raise ReducerTimeout("the time limit of this call has passed")

        return run


def _argument_decoder(reducer: BuiltReducer, typespace: Typespace) -> Callable[[bytes], tuple[tuple[Any, ...], int]]:
    """Return the function from a call's BSATN to (arguments, end); leftovers are ignored (spec 01 section 5.4)."""
    if not any(reducer.shape.shapes):
        return bsatn.codec(reducer.params, typespace).decode
    decode = bsatn.object_codec(reducer.params, reducer.shape, typespace).decode

    def arguments(args: bytes) -> tuple[tuple[Any, ...], int]:
        try:
            return decode(args)
        except DecodeError:
            raise
        except (OverflowError, ValueError) as error:  # a moment outside what datetime can say
            raise DecodeError(f"an argument has no such value in Python: {error}") from error

    return arguments


def _raise_sorted(error: BaseException, call: ReducerCall) -> NoReturn:
    """Raise what the database knows for what left a reducer."""
    kind = type(error)  # `isinstance` would ask the exception, which is module code
    if call.transaction.expired or issubclass(kind, ReducerTimeout):
        place = failure_place(error)
        where = "" if place is None else f"; it was at {place}"
        text = failure_text(error) if issubclass(kind, ReducerTimeout) else "the time limit of this call has passed"
        raise ReducerTimeout(text + where) from error
    if issubclass(kind, ReducerError):
        raise ReducerError(failure_text(error)) from error
    place = failure_place(error)
    raise ModuleFault(
        FATAL,
        report=describe_failure(error),
        filename=None if place is None else place.filename,
        line=None if place is None else place.line,
    ) from error


def mutable_state(version: "Version") -> Iterator[tuple[Place, str]]:
    """Yield a warning for every module-level value that calls could change: it is not rolled back and not kept."""
    for filename, tree, namespace in version.trees():
        for line, name in _assigned(tree):
            value = namespace.get(name)
            if issubclass(type(value), _MUTABLE) and not name.startswith("__"):
                yield Place(filename, line), _STATE.format(name=name, kind=type(value).__name__)
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                yield Place(filename, node.lineno), _STATE.format(name=", ".join(node.names), kind="global")


def _assigned(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of every assignment at module level."""
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        yield from ((node.lineno, target.id) for target in targets if isinstance(target, ast.Name))


def _unload(version: "Version", output: Output) -> None:
    unwatch(version.directory)
    version.unload()
    output.close()
