"""Row classes: a class with annotations made into a small mutable record with typed columns.

Responsible for: collecting a class's columns, the class that takes its place (C slots, keyword-only constructor,
`==`, `repr`, `match`, `replace`), column expressions as its class attributes.
Not responsible for: what annotations mean (`annotations`), tables (`tables`), bytes (`stdb.sats.objects`).

Attributes of the class are data descriptors on a metaclass of its own, attributes of a row are slots: reading one costs
8 ns, where a descriptor on the class costs 245. Column names enter the generated source only after they are known to be
identifiers and no keywords.

Source: spec 08, "Tables" and "Access inside a reducer".
"""

import copy
import inspect
import keyword
import re
import sys
from collections.abc import Callable, Iterator
from types import CellType, FunctionType
from typing import Any, ClassVar, NoReturn, TypeVar, get_origin

from stdb.modules.python.columns import NO_DEFAULT, Marker
from stdb.modules.python.conditions import Column
from stdb.modules.python.declarations import Place, column_place

__all__ = ["ColumnShape", "RowShape", "build_row_class", "replace", "shape_of"]

R = TypeVar("R")
RESERVED_NAMES = {"replace", "mro"}
_CLASS_VAR = re.compile(r"^\s*(?:\w+\s*\.\s*)?ClassVar\b")


class ColumnShape:
    """One column as the class wrote it: name, annotation (maybe a string), marker, the class that wrote it."""

    __slots__ = ("annotation", "marker", "name", "owner")

    def __init__(self, name: str, annotation: Any, marker: Marker, owner: type) -> None:
        self.name = name
        self.annotation = annotation
        self.marker = marker
        self.owner = owner

    @property
    def in_constructor(self) -> bool:
        """Tell whether the constructor takes the column."""
        return not self.marker.auto_inc


class RowShape:
    """What is known of a row class: its columns in order. `is_table` tells rows from plain products."""

    __slots__ = ("columns", "factory", "is_table", "module", "name", "place", "row_class")

    def __init__(self, name: str, module: str, columns: tuple[ColumnShape, ...], is_table: bool, place: Place) -> None:
        self.name = name
        self.module = module
        self.columns = columns
        self.is_table = is_table
        self.place = place
        self.row_class: Any = None
        self.factory: Callable[..., Any] = RowShape
        """Makes a row of its values by position; set with `row_class` once that exists."""

    def position(self, name: str) -> int | None:
        """Return the position of a column."""
        return next((i for i, column in enumerate(self.columns) if column.name == name), None)

    def place_of(self, column: str) -> Place:
        """Return where a column of the class itself is written; the class's place for inherited ones."""
        return column_place(self.place, self.name, column)


class _ColumnAttribute:
    """A column expression as attribute of the row class, found on its metaclass."""

    __slots__ = ("_column",)

    def __init__(self, column: Column) -> None:
        self._column = column

    def __get__(self, instance: object, owner: object = None) -> Column:
        return self._column

    def __set__(self, instance: object, value: object) -> NoReturn:
        raise AttributeError(f"{self._column!r} is a column: set it on a row, not on the class")

    def __delete__(self, instance: object) -> NoReturn:
        raise AttributeError(f"{self._column!r} is a column: it cannot be deleted")


class RowMeta(type):
    """Base of the metaclasses of row classes."""


def shape_of(row_class: Any) -> RowShape | None:
    """Return the shape of a row class; None for anything else."""
    shape = getattr(type(row_class), "__stdb_shape__", None)
    return shape if isinstance(shape, RowShape) and shape.row_class is row_class else None


def replace(row: R, **changes: Any) -> R:
    """Return a copy of `row` with other values in some columns, auto-inc columns included.

    The same as `row.replace(…)`, for code under a type checker, which cannot see that method.
    """
    method: Callable[..., R] = type(row).__replace__  # type: ignore[attr-defined]  # put there by build_row_class
    return method(row, **changes)


def collect_columns(cls: type) -> Iterator[ColumnShape]:
    """Yield the columns of a class: those of its bases first, each name once, the last word on it winning."""
    found: dict[str, ColumnShape] = {}
    for owner in reversed(cls.__mro__):
        for name, annotation in _annotations(owner).items():
            if not _is_class_var(annotation):
                found[name] = ColumnShape(name, annotation, _marker(owner.__dict__.get(name, NO_DEFAULT)), owner)
    return iter(found.values())


def _annotations(owner: type) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(owner, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(owner)


def _is_class_var(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return _CLASS_VAR.match(annotation) is not None
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _marker(value: Any) -> Marker:
    return value if isinstance(value, Marker) else Marker(default=value)


def check_names(cls: type, columns: tuple[ColumnShape, ...]) -> Iterator[tuple[str, str]]:
    """Yield (column, mistake) for every column whose name or marker cannot be."""
    for column in columns:
        name, marker = column.name, column.marker
        if not name.isidentifier() or keyword.iskeyword(name):
            yield name, f"{cls.__name__}.{name!r} is not a name that a column can have"
        elif name in RESERVED_NAMES or (name.startswith("__") and name.endswith("__")):
            yield name, f"{cls.__name__}.{name}: the name is taken by what every row has; choose another"
        if marker.auto_inc and marker.default is not NO_DEFAULT:
            yield name, f"{cls.__name__}.{name}: an auto_inc column has no default; remove one of the two"


def build_row_class(cls: type[R], shape: RowShape) -> type[R]:
    """Return the class that takes the place of `cls`: same name, bases, methods; columns as C slots."""
    names = tuple(column.name for column in shape.columns)
    metaclass = _metaclass(cls, shape)
    namespace = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__", *names)}
    namespace |= {"__slots__": names, "__match_args__": names}
    namespace |= {name: value for name, value in _methods(cls, shape).items() if name not in cls.__dict__}
    namespace.setdefault("__hash__", None)
    if any("__dict__" in base.__dict__ for base in cls.__mro__[1:]):
        namespace["__setattr__"] = _guarded_setattr(cls.__name__, names)
    created: Any = metaclass(cls.__name__, cls.__bases__, namespace)
    _adopt_methods(cls, created)
    shape.row_class = created
    shape.factory = _factory(created, len(names))
    return created  # type: ignore[no-any-return]  # the class we just made


def _factory(row_class: type, count: int) -> Callable[..., Any]:
    """Return the function that makes a row of its values by position: what decoders call."""
    names = [column for column in row_class.__match_args__]  # type: ignore[attr-defined]  # put there by build_row_class
    source = [
        f"def factory({', '.join(f'v{position}' for position in range(count))}):",
        "    row = new(row_class)",
        *(f"    row.{name} = v{position}" for position, name in enumerate(names)),
        "    return row",
    ]
    namespace: dict[str, Any] = {"new": object.__new__, "row_class": row_class}
    exec(compile("\n".join(source), "<row factory>", "exec"), namespace)
    factory: Callable[..., Any] = namespace["factory"]
    return factory


def _metaclass(cls: type, shape: RowShape) -> type:
    bases = (RowMeta,) if type(cls) is type else (RowMeta, type(cls))
    attributes: dict[str, Any] = {
        column.name: _ColumnAttribute(Column(shape, position, column.name))
        for position, column in enumerate(shape.columns)
    }
    return type(f"{cls.__name__}Meta", bases, attributes | {"__stdb_shape__": shape})


def _guarded_setattr(class_name: str, names: tuple[str, ...]) -> Callable[[Any, str, Any], None]:
    """Return a `__setattr__` for classes whose bases would let any attribute be set."""
    known = frozenset(names)

    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807 - it is put into a class
        if name not in known:
            raise AttributeError(f"{class_name!r} object has no column {name!r}")
        object.__setattr__(self, name, value)

    return __setattr__


def _adopt_methods(old: type, new: type) -> None:
    """Point the `__class__` cells of methods (what a bare `super()` uses) at the new class."""
    for value in old.__dict__.values():
        for function in _functions(value):
            for cell in function.__closure__ or ():
                if _holds(cell, old):
                    cell.cell_contents = new


def _functions(value: Any) -> Iterator[FunctionType]:
    candidates = (value, getattr(value, "__func__", None), *(getattr(value, k, None) for k in ("fget", "fset", "fdel")))
    return (candidate for candidate in candidates if isinstance(candidate, FunctionType))


def _holds(cell: CellType, value: object) -> bool:
    try:
        return cell.cell_contents is value
    except ValueError:  # an empty cell
        return False


def _methods(cls: type, shape: RowShape) -> dict[str, Any]:
    source, names = _source(shape)
    exec(compile(source, f"<row class {cls.__name__}>", "exec"), names)
    methods = {name: names[name] for name in ("__init__", "__eq__", "__repr__", "replace")}
    for name, method in methods.items():
        method.__qualname__ = f"{cls.__qualname__}.{name}"
        method.__module__ = cls.__module__
    return methods | {"__replace__": methods["replace"]}


def _source(shape: RowShape) -> tuple[str, dict[str, Any]]:
    """Return the source of a row class's methods, and its globals; our names begin with what no column begins with."""
    ours = "_0"
    while any(column.name.startswith(ours) for column in shape.columns):
        ours += "0"
    values: dict[str, Any] = {f"{ours}new": object.__new__, f"{ours}unset": _UNSET, f"{ours}copy": copy.deepcopy}
    parameters, body = [], []
    for position, column in enumerate(shape.columns):
        default = column.marker.default
        value = column.name
        if not column.in_constructor:
            body.append(f"    {ours}.{column.name} = 0")
            continue
        if default is NO_DEFAULT:
            parameters.append(column.name)
        else:
            values[f"{ours}default{position}"] = default
            if copy.deepcopy(default) is default:  # it cannot change
                parameters.append(f"{column.name}={ours}default{position}")
            else:
                parameters.append(f"{column.name}={ours}unset")
                value = f"{ours}copy({ours}default{position}) if {column.name} is {ours}unset else {column.name}"
        body.append(f"    {ours}.{column.name} = {value}")
    mine = _tuple(ours, shape)
    theirs = _tuple(f"{ours}other", shape)
    shown = ", ".join(f"{column.name}={{{ours}.{column.name}!r}}" for column in shape.columns)
    signature = f"{ours}, /, *, {', '.join(parameters)}" if parameters else f"{ours}, /"
    lines = [
        f"def __init__({signature}):",
        *(body or ["    pass"]),
        f"def __eq__({ours}, {ours}other, /):",
        f"    if {ours}other.__class__ is not {ours}.__class__:",
        "        return NotImplemented",
        f"    return {mine} == {theirs}",
        f"def __repr__({ours}, /):",
        f"    return f'{{{ours}.__class__.__name__}}({shown})'",
        f"def replace({ours}, /, **{ours}changes):",
        f"    {ours}row = {ours}new({ours}.__class__)",
        *(f"    {ours}row.{name} = {ours}changes.pop('{name}', {ours}.{name})" for name in _names(shape)),
        f"    if {ours}changes:",
        f"        raise TypeError({ours}.__class__.__name__ + ' has no column ' + ', '.join(map(repr, {ours}changes)))",
        f"    return {ours}row",
    ]
    return "\n".join(lines), values


def _tuple(variable: str, shape: RowShape) -> str:
    return "(" + "".join(f"{variable}.{column.name}, " for column in shape.columns) + ")"


def _names(shape: RowShape) -> Iterator[str]:
    return (column.name for column in shape.columns)


class _Unset:
    """The type of the default that stands for "a fresh copy of the column's default"."""

    def __repr__(self) -> str:
        """Return what a signature shows."""
        return "…"


_UNSET = _Unset()
