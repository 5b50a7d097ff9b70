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
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar
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
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
T = TypeVar("T")
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
        self._entries: dict[tuple[str, int], Any] = {}
        self.raised: list[ReducerError | ModuleFault] = []
        """What its functions raised and nobody has looked at, latest last."""

    def attach(self, datastore: Datastore, database_identity: bytes, log: LogSink) -> None:
        """Bind to the tables of a database."""
        self.datastore = datastore
        self.python.attach(datastore, database_identity, log)

    def reducer(self, reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
        """Return the entry of a reducer."""
        return self._entry(self.python.reducer, reducer_id, self._watched)

    def view(self, position: int) -> Callable[[ViewCall], list[bytes] | ViewSql]:
        """Return the entry of a view."""
        return self._entry(self.python.view, position, self._watched)

    def procedure(self, procedure_id: int) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
        """Return the entry of a procedure."""
        return self._entry(self.python.procedure, procedure_id, self._watched_waiting)

    def route(self, position: int) -> Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]:
        """Return the handler of a route."""
        return self._entry(self.python.route, position, self._watched_waiting)

    def forget(self) -> None:
        """Forget what was raised, and the tables."""
        self.raised = []
        self.datastore = None

    def _entry(self, make: Callable[[int], F], position: int, watched: Callable[[F], F]) -> F:
        """Return an entry, the same for every attachment: making one is much of starting a host."""
        key = make.__name__, position
        if key not in self._entries:
            self._entries[key] = watched(make(position))
        entry: F = self._entries[key]
        return entry

    def _watched(self, entry: Callable[P, T]) -> Callable[P, T]:
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return entry(*args, **kwargs)
            except (ReducerError, ModuleFault) as error:
                self.raised.append(error)
                raise

        return run

    def _watched_waiting(self, entry: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await entry(*args, **kwargs)
            except (ReducerError, ModuleFault) as error:
                self.raised.append(error)
                raise

        return run


_SOURCES: WeakKeyDictionary[ModuleType, bytes] = WeakKeyDictionary()
_IDLE: dict[bytes, list[WatchedModule]] = {}
_HAS_STATE: dict[bytes, bool] = {}


def borrow_module(program: bytes) -> WatchedModule:
    """Return a loaded program that nobody else uses until it is given back.

    Raises:
        SchemaError: It does not load; holds every mistake.
    """
    idle = _IDLE.setdefault(program, [])
    return idle.pop() if idle else WatchedModule(load_archive(program))


def give_back_module(program: bytes, module: WatchedModule) -> None:
    """Keep a loaded program for the next test, unless it may remember something of this one."""
    python = module.python
    if program not in _HAS_STATE:
        _HAS_STATE[program] = any(True for _ in mutable_state(python._version))
    if not _HAS_STATE[program] and len(_IDLE[program]) < IDLE_MAX:
        python._output._once.clear()  # the next database is warned of everything anew
        module.forget()
        _IDLE[program].append(module)
