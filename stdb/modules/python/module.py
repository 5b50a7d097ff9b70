"""PythonModule: a loaded program that a database calls.

Responsible for: the `Module` of `stdb.modules.protocol`: binding to tables, what there is to warn of.
Not responsible for: loading (`loader`), entries (`entries`), transactions and deadlines (`actors`).

Source: spec 08, "Functions"; spec 04 section 7.
"""

import ast
import collections
import inspect
import weakref
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from stdb.modules.environment import Environment
from stdb.modules.protocol import (
    HttpRequest,
    HttpResponse,
    Migration,
    MigrationCall,
    ProcedureCall,
    ReducerCall,
    RouteCall,
    ViewCall,
    ViewSql,
)
from stdb.modules.python.accessors import make_table
from stdb.modules.python.blocking import unwatch
from stdb.modules.python.context import Surroundings
from stdb.modules.python.database import make_database
from stdb.modules.python.declarations import FunctionDeclaration, Place, ProcedureDeclaration, ViewDeclaration
from stdb.modules.python.definition import Program
from stdb.modules.python.entries import Bound, procedure_entry, reducer_entry, route_entry, view_entry
from stdb.modules.python.migrations import run_migration
from stdb.modules.python.output import Output
from stdb.modules.python.query import Access
from stdb.modules.python.table import Binding
from stdb.sats import bsatn
from stdb.sats.objects import ObjectShape, Shape
from stdb.sats.types import Product

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import TableSchema
    from stdb.modules.protocol import LogSink
    from stdb.modules.python.importer import Version
    from stdb.sats.types import AlgebraicType
    from stdb.schema.model import ModuleDef

__all__ = ["PythonModule"]

T = TypeVar("T")
_MUTABLE = (list, dict, set, bytearray, collections.deque)
_STATE = (
    "module-level state `{name}` ({kind}) is not rolled back with a failed call and not kept over a restart: "
    "keep it in a table, or make it a constant (tuple, frozenset)"
)


class PythonModule:
    """A loaded Python program. One instance belongs to one database and is called from one thread."""

    def __init__(self, program: Program, version: "Version", output: Output, program_hash: bytes) -> None:
        self.definition: ModuleDef = program.definition
        self.program_hash = program_hash
        self.name = version.name
        self.migrations = tuple(
            Migration(each.name, each.declaration.function.__name__, str(each.place)) for each in program.migrations
        )
        """See `stdb.modules.protocol.Migrating`."""
        self._program = program
        self._version = version
        self._output = output
        self._bound = Bound(output)
        self._codecs: dict[tuple[Product, ObjectShape], bsatn.Codec] = {}
        self._has_warned = False
        weakref.finalize(self, _unload, version, output).atexit = False

    def attach(self, datastore: "Datastore", database_identity: bytes, log: "LogSink") -> None:
        """Bind to the tables of a database; called once before the first call and again after a schema change."""
        self._output.attach(log)
        if not self._has_warned:
            self._has_warned = True
            for place, text in (*mutable_state(self._version), *unused_defaults(self._program)):
                self._output.warn_once(place, text)
        bindings: dict[Any, Binding] = {}
        names: dict[str, Binding] = {}
        for built in self._program.tables:
            declaration = built.declaration
            stored = datastore.table(declaration.name)
            assert stored is not None, f"table {declaration.name} is created before the module is attached"
            assert isinstance(built.row.shape, ObjectShape)
            codec = self._codec(stored.schema.row_type, built.row.shape)
            access = Access(stored, built.row.shape, declaration.shape)
            binding = Binding(datastore, stored, access, codec, declaration.shape.row_class, self._output)
            bindings[declaration.key] = names[declaration.name] = binding
        bound = self._bound
        environment = Environment(self.definition, self.program_hash, datastore)
        bound.around = Surroundings(database_identity, environment)
        bound.bindings, bound.names = bindings, names
        tables = {name: make_table(binding) for name, binding in names.items()}
        bound.database = make_database({key: tables[binding.name] for key, binding in bindings.items()}, tables)

    @property
    def around(self) -> Surroundings:
        """What its functions learn of the database that it is attached to."""
        return self._bound.around

    def _codec(self, row_type: Product, shape: ObjectShape) -> bsatn.Codec:
        """Return the codec of a table's rows, the same for every attachment: making one is most of attaching."""
        found = self._codecs.get((row_type, shape))
        if found is None:
            found = self._codecs[row_type, shape] = bsatn.object_codec(row_type, shape)
        return found

    def reducer(self, reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
        """Return the entry of a reducer; see `stdb.modules.protocol.Module`. It serves every later attachment too."""
        return reducer_entry(self._bound, self._program.reducers[reducer_id], self.definition.typespace)

    def view(self, position: int) -> Callable[[ViewCall], list[bytes] | ViewSql]:
        """Return the entry of a view; see `stdb.modules.protocol.Module`."""
        entry: Callable[[ViewCall], list[bytes] | ViewSql]
        entry = view_entry(self._bound, self._program.views[position], self.definition.typespace)
        return entry

    def procedure(self, procedure_id: int) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
        """Return the entry of a procedure; see `stdb.modules.protocol.Module`."""
        entry = procedure_entry(self._bound, self._program.procedures[procedure_id], self.definition.typespace)
        return partial(self._finish, entry)

    def route(self, position: int) -> Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]:
        """Return the handler of a route; see `stdb.modules.protocol.Module`."""
        entry = route_entry(self._bound, self._program.routes[position])
        return partial(self._finish, entry)

    def migrate(self, position: int, old: "TableSchema", rows: list[bytes], call: MigrationCall) -> None:
        """Give old rows to a migration; see `stdb.modules.protocol.Migrating`."""
        built = self._program.migrations[position]
        same: dict[str, tuple[AlgebraicType, Shape | None]] = {}
        for table in self._program.tables:
            if table.declaration is built.declared:
                definition = self.definition.table(built.name)
                assert definition is not None, "a declared table is in the definition"
                columns = zip(definition.columns, table.columns, strict=True)
                same = {column.name: (column.type, built_column.shape) for column, built_column in columns}
        run_migration(self._bound, built, old, same, rows, call)

    async def _finish(self, entry: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run what waits; this version stays loaded meanwhile, though a new one may have taken over."""
        return await entry(*args)


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


def unused_defaults(program: Program) -> Iterator[tuple[Place, str]]:
    """Yield a warning for every default of a parameter that clients would have to leave out to get it."""
    declarations: list[FunctionDeclaration | ViewDeclaration | ProcedureDeclaration] = [
        *(built.declaration for built in program.reducers),
        *(built.declaration for built in program.views),
        *(built.declaration for built in program.procedures),
    ]
    for declaration in declarations:
        function, place = declaration.function, declaration.place
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                path = f"{function.__name__}({name})"
                yield place, f"{path} has a default, which only calls from Python get: clients send every argument"


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
