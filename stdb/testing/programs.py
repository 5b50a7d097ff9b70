"""Programs under test: from what a test names as its module to what a host runs, loaded once for many tests.

Responsible for: reading a module's files, keeping loaded programs for the next test, noting what a module raised.
Not responsible for: what a test sees of a program (`twin`), hosts (`running`), packing (`stdb.cli.pack`).

A test imports its module like any other; the database runs a version of its own, imported from the same files, as a
server does. A version is used by one database at a time, and again by the next test, if it has no state at module
level, which `stdb.modules.python` warns of. One that has such state is imported afresh for every test.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from stdb.cli.errors import CliError
from stdb.cli.pack import read_program
from stdb.datastore.datastore import Datastore
from stdb.errors import ModuleFault, ReducerError, SchemaError
from stdb.modules.protocol import (
    HttpRequest,
    HttpResponse,
    LogSink,
    ProcedureCall,
    ReducerCall,
    RouteCall,
    ViewCall,
    ViewSql,
)
from stdb.modules.python.loader import load_archive
from stdb.modules.python.module import PythonModule, mutable_state

__all__ = ["Source", "Subject", "WatchedModule", "borrow_module", "give_back_module", "read_source"]

Subject: TypeAlias = ModuleType | Path | str | bytes
"""What a test names as its module: the imported module, the path of its file or directory, or a packed program."""
IDLE_MAX = 4
"""Loaded versions of one program that are kept."""


class Source(NamedTuple):
    """A program, and the imported module of the test that it is of, if it was given as one."""

    program: bytes
    python: ModuleType | None


def read_source(subject: Subject) -> Source:
    """Return the program of what a test named.

    Raises:
        SchemaError: There is no module to read.
    """
    if isinstance(subject, bytes):
        return Source(subject, None)
    if isinstance(subject, ModuleType):
        known = _SOURCES.get(subject)
        if known is None:
            known = _SOURCES[subject] = _read(_path_of(subject))
        return Source(known, subject)
    return Source(_read(Path(subject)), None)


def _path_of(module: ModuleType) -> Path:
    if module.__file__ is None or not module.__file__.endswith(".py"):
        raise SchemaError([f"{module.__name__} was not imported from a .py file: name the path of its file instead"])
    path = Path(module.__file__)
    return path.parent if path.name == "__init__.py" else path


def _read(path: Path) -> bytes:
    try:
        return read_program(path).body
    except CliError as error:
        raise SchemaError([str(error)]) from error


class WatchedModule:
    """A `stdb.modules.protocol.Module` that a test looks into: passes everything on to a loaded program."""

    def __init__(self, python: PythonModule) -> None:
        self.python = python
        self.definition = python.definition
        self.program_hash = python.program_hash
        self.datastore: Datastore | None = None
        """The tables that it is attached to."""
        self.raised: list[ReducerError | ModuleFault] = []
        """What its functions raised and nobody has looked at, latest last."""

    def attach(self, datastore: Datastore, database_identity: bytes, log: LogSink) -> None:
        """Bind to the tables of a database."""
        self.datastore = datastore
        self.python.attach(datastore, database_identity, log)

    def reducer(self, reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
        """Return the entry of a reducer."""
        entry = self.python.reducer(reducer_id)

        def run(call: ReducerCall, args: bytes) -> None:
            try:
                entry(call, args)
            except (ReducerError, ModuleFault) as error:
                self.raised.append(error)
                raise

        return run

    def view(self, position: int) -> Callable[[ViewCall], list[bytes] | ViewSql]:
        """Return the entry of a view."""
        entry = self.python.view(position)

        def run(call: ViewCall) -> list[bytes] | ViewSql:
            try:
                return entry(call)
            except (ReducerError, ModuleFault) as error:
                self.raised.append(error)
                raise

        return run

    def procedure(self, procedure_id: int) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
        """Return the entry of a procedure."""
        entry = self.python.procedure(procedure_id)

        async def run(call: ProcedureCall, args: bytes) -> bytes:
            try:
                return await entry(call, args)
            except (ReducerError, ModuleFault) as error:
                self.raised.append(error)
                raise

        return run

    def route(self, position: int) -> Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]:
        """Return the handler of a route."""
        entry = self.python.route(position)

        async def run(call: RouteCall, request: HttpRequest) -> HttpResponse:
            try:
                return await entry(call, request)
            except (ReducerError, ModuleFault) as error:
                self.raised.append(error)
                raise

        return run


_SOURCES: WeakKeyDictionary[ModuleType, bytes] = WeakKeyDictionary()
_IDLE: dict[bytes, list[PythonModule]] = {}
_HAS_STATE: dict[bytes, bool] = {}


def borrow_module(program: bytes) -> WatchedModule:
    """Return a loaded program that nobody else uses until it is given back.

    Raises:
        SchemaError: It does not load; holds every mistake.
    """
    idle = _IDLE.setdefault(program, [])
    try:
        python = idle.pop()
    except IndexError:
        python = load_archive(program)
    return WatchedModule(python)


def give_back_module(program: bytes, module: WatchedModule) -> None:
    """Keep a loaded program for the next test, unless it may remember something of this one."""
    python = module.python
    if program not in _HAS_STATE:
        _HAS_STATE[program] = any(True for _ in mutable_state(python._version))
    if not _HAS_STATE[program] and len(_IDLE[program]) < IDLE_MAX:
        python._output._once.clear()  # the next database is warned of everything anew
        _IDLE[program].append(python)
