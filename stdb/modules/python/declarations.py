"""Declarations: what the decorators of a module under load have said so far.

Responsible for: one frozen value per declaration, the collector that a load installs, places (file, line), findings.
Not responsible for: what a declaration means (`definition`), the decorators (`tables`, `functions`).

Outside a load (a module imported by a test or a type checker's plugin) the decorators work and nothing is collected;
a mistake then raises TypeError at once instead of being reported with the others.
"""

import ast
import linecache
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stdb.schema.model import Lifecycle

if TYPE_CHECKING:
    from stdb.modules.python.columns import Index, Unique
    from stdb.modules.python.rows import RowShape

__all__ = [
    "Declarations",
    "Finding",
    "FunctionDeclaration",
    "MigrationDeclaration",
    "Place",
    "ProcedureDeclaration",
    "RouteDeclaration",
    "RuleDeclaration",
    "TableDeclaration",
    "VariableDeclaration",
    "ViewDeclaration",
    "caller_place",
    "collecting",
    "column_place",
    "function_place",
    "register",
    "report",
]

SOURCE_ROOT = "_stdb_modules/"
_VERSION = re.compile(r"\b_stdb_modules\.[0-9a-f]{64}\.")


class Place(NamedTuple):
    """A line of a source file, as Python names the file."""

    filename: str
    line: int

    def __str__(self) -> str:
        """Return `file:line`, the file as its author knows it."""
        return f"{shown_path(self.filename)}:{self.line}"


@dataclass(frozen=True)
class Finding:
    """One mistake: where it is, what it is and what to do."""

    place: Place | None
    text: str
    unresolved: bool = False
    """The mistake is a name that was not there, which a failed import elsewhere may explain."""

    def __str__(self) -> str:
        """Return the line that the author reads."""
        text = _VERSION.sub("", self.text)  # classes are shown as their author knows them
        return text if self.place is None else f"{self.place}: {text}"


@dataclass(frozen=True)
class TableDeclaration:
    """One `@table`; `key` is what `ctx.db[key]` takes: the row class or the handle of a second table."""

    key: Any
    shape: "RowShape"
    name: str
    public: bool
    event: bool
    indexes: "tuple[Index, ...]"
    uniques: "tuple[Unique, ...]"
    owner: str
    place: Place
    scheduled: bool = False
    """Its rows call a function when they are due."""


@dataclass(frozen=True)
class FunctionDeclaration:
    """One reducer, under the name that clients call."""

    function: Callable[..., Any]
    name: str
    private: bool
    lifecycle: Lifecycle | None
    owner: str
    place: Place
    scheduled: Any = None
    """The row class of the scheduled table whose rows call it."""


@dataclass(frozen=True)
class ViewDeclaration:
    """One view; `primary_key` is the name of a column of its rows."""

    function: Callable[..., Any]
    name: str
    public: bool
    primary_key: str | None
    owner: str
    place: Place


@dataclass(frozen=True)
class ProcedureDeclaration:
    """One procedure; members as in FunctionDeclaration."""

    function: Callable[..., Any]
    name: str
    private: bool
    owner: str
    place: Place
    scheduled: Any = None


@dataclass(frozen=True)
class RouteDeclaration:
    """One route to a handler; `method` in capitals, None for any."""

    function: Callable[..., Any]
    name: str
    method: str | None
    path: str
    owner: str
    place: Place


@dataclass(frozen=True)
class RuleDeclaration:
    """One `client_visibility_filter`."""

    sql: str
    owner: str
    place: Place


@dataclass(frozen=True)
class VariableDeclaration:
    """One `environment_variable`; `choices`: None for any text."""

    name: str
    optional: bool
    choices: tuple[str, ...] | None
    owner: str
    place: Place


@dataclass(frozen=True)
class MigrationDeclaration:
    """One migration; `table` is the key of a table, or the name of one that is gone."""

    function: Callable[..., Any]
    table: Any
    owner: str
    place: Place


Declaration: TypeAlias = (
    TableDeclaration
    | FunctionDeclaration
    | ViewDeclaration
    | ProcedureDeclaration
    | RouteDeclaration
    | RuleDeclaration
    | VariableDeclaration
    | MigrationDeclaration
)


@dataclass
class Declarations:
    """All declarations of one load, in the order of their execution."""

    package: str
    """Dotted name under which the version is imported; declarations of other packages are not collected."""
    tables: list[TableDeclaration] = field(default_factory=list)
    functions: list[FunctionDeclaration] = field(default_factory=list)
    views: list[ViewDeclaration] = field(default_factory=list)
    procedures: list[ProcedureDeclaration] = field(default_factory=list)
    routes: list[RouteDeclaration] = field(default_factory=list)
    rules: list[RuleDeclaration] = field(default_factory=list)
    variables: list[VariableDeclaration] = field(default_factory=list)
    migrations: list[MigrationDeclaration] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def owns(self, module: str) -> bool:
        """Tell whether `module` (a dotted name) is part of the version being loaded."""
        return module == self.package or module.startswith(self.package + ".")


_current: ContextVar[Declarations | None] = ContextVar("declarations", default=None)


@contextmanager
def collecting(declarations: Declarations) -> Iterator[None]:
    """Collect into `declarations` what the decorators say inside the block."""
    token = _current.set(declarations)
    try:
        yield
    finally:
        _current.reset(token)


def register(declaration: Declaration) -> None:
    """Add a declaration to the load that is running, if it belongs to it."""
    current = _current.get()
    if current is None or not current.owns(declaration.owner):
        return
    match declaration:
        case TableDeclaration():
            current.tables.append(declaration)
        case FunctionDeclaration():
            current.functions.append(declaration)
        case ViewDeclaration():
            current.views.append(declaration)
        case ProcedureDeclaration():
            current.procedures.append(declaration)
        case RouteDeclaration():
            current.routes.append(declaration)
        case RuleDeclaration():
            current.rules.append(declaration)
        case VariableDeclaration():
            current.variables.append(declaration)
        case MigrationDeclaration():
            current.migrations.append(declaration)


def report(place: Place, text: str) -> None:
    """Add a finding to the load that is running.

    Raises:
        TypeError: No load is running.
    """
    current = _current.get()
    if current is None:
        raise TypeError(text)
    current.findings.append(Finding(place, text))


def shown_path(filename: str) -> str:
    """Return a source file's path as its author knows it: without the prefix of its version."""
    if not filename.startswith(SOURCE_ROOT):
        return filename
    return filename[len(SOURCE_ROOT) :].partition("/")[2]


def caller_place(depth: int = 1) -> Place:
    """Return the line that called the caller (`depth` 1), or a line further out."""
    frame = sys._getframe(depth + 1)
    return Place(frame.f_code.co_filename, frame.f_lineno)


def caller_module(depth: int = 1) -> str:
    """Return the dotted name of the module that called the caller."""
    return str(sys._getframe(depth + 1).f_globals.get("__name__", ""))


def function_place(function: Callable[..., Any]) -> Place:
    """Return where a function begins."""
    code = getattr(function, "__code__", None)
    return Place(code.co_filename, code.co_firstlineno) if code is not None else Place("?", 0)


def column_place(class_place: Place, class_name: str, column: str) -> Place:
    """Return the line of a column's annotation; the class's own place where the source cannot tell."""
    for node in ast.walk(_tree(class_place.filename)):
        if isinstance(node, ast.ClassDef) and node.name == class_name and _spans(node, class_place.line):
            for statement in node.body:
                if (
                    isinstance(statement, ast.AnnAssign)
                    and isinstance(statement.target, ast.Name)
                    and statement.target.id == column
                ):
                    return Place(class_place.filename, statement.lineno)
    return class_place


def _spans(node: ast.ClassDef, line: int) -> bool:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return first <= line <= (node.end_lineno or node.lineno)


def _tree(filename: str) -> ast.AST:
    try:
        return ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])
