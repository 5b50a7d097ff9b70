"""Annotations: from what an author writes behind a colon to a column's or argument's type.

Responsible for: resolving annotations that are text, one typespace per module, errors with path and advice.
Not responsible for: which classes and functions there are (`definition`), values (`stdb.sats.objects`).

Source: spec 08, the table under "Tables".
"""

import datetime
import enum
import types as python_types
import typing
import uuid
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ForwardRef, NamedTuple, Never, NoReturn, Union, get_args, get_origin

from stdb.modules.python.rows import ColumnShape, RowShape, shape_of
from stdb.modules.python.tables import OptionalSumType, SumType, TableHandle
from stdb.sats import objects, types
from stdb.sats.special import Address, Identity, ScheduleAt, TimeDuration, Timestamp

__all__ = ["AnnotationError", "Annotations", "ColumnType", "resolved"]

_PLAIN: dict[Any, types.AlgebraicType] = {
    bool: types.BOOL,
    int: types.I64,
    float: types.F64,
    str: types.STRING,
    bytes: types.BYTES,
}
_SPECIAL: dict[Any, tuple[types.AlgebraicType, objects.Shape]] = {
    Identity: (types.IDENTITY, objects.IDENTITY_SHAPE),
    Address: (types.CONNECTION_ID, objects.ADDRESS_SHAPE),
    Timestamp: (types.TIMESTAMP, objects.TIMESTAMP_SHAPE),
    TimeDuration: (types.TIME_DURATION, objects.TIME_DURATION_SHAPE),
    ScheduleAt: (types.SCHEDULE_AT, objects.SCHEDULE_AT_SHAPE),
    uuid.UUID: (types.UUID, objects.UUID_SHAPE),
    datetime.datetime: (types.TIMESTAMP, objects.DATETIME_SHAPE),
    datetime.timedelta: (types.TIME_DURATION, objects.TIMEDELTA_SHAPE),
}
_HINTS: dict[Any, str] = {
    tuple: "tuple is no column type: name it: make a `@product` class",
    dict: "dict is no column type: use a list of a `@product` class with a key and a value",
    set: "set is no column type: use a list, or a table of its own",
    frozenset: "frozenset is no column type: use a list, or a table of its own",
    list: "list needs the type of its elements: write list[T]",
    bytearray: "bytearray is no column type: use bytes",
    complex: "complex is no column type: make a `@product` class of two floats",
    datetime.date: "date is no column type: use datetime, Timestamp or str",
    Any: "Any is no column type: a column has one type; a union of `@product` classes holds several",
    object: "object is no column type: a column has one type; a union of `@product` classes holds several",
    type(None): "None alone is no column type: write T | None",
    None: "None alone is no column type: write T | None",
    Never: "Never is no column type: no row could have a value of it",
    NoReturn: "NoReturn is no column type: no row could have a value of it",
}


class AnnotationError(Exception):
    """An annotation that cannot be. `unresolved`: a name in it was not found."""

    def __init__(self, path: str, text: str, *, unresolved: bool = False) -> None:
        super().__init__(f"{path}: {text}")
        self.unresolved = unresolved


class ColumnType(NamedTuple):
    """What an annotation means: the type in the module's definition, and the objects that stand for its values."""

    type: types.AlgebraicType
    shape: objects.Shape | None


class Annotations:
    """Reads the annotations of one module and numbers the types that they name.

    Args:
        namespaces: Every Python module of the program by its dotted name, for annotations that are text and for the
            names of unions.
    """

    def __init__(self, namespaces: Mapping[str, Mapping[str, Any]]) -> None:
        self._namespaces = namespaces
        self._names = _union_names(namespaces.values())
        self._known: dict[Any, ColumnType] = {}
        self._in_progress: list[RowShape] = []
        self.types: list[tuple[str, types.AlgebraicType]] = []
        """Name and type of every entry of the typespace."""
        self.rows: dict[int, RowShape] = {}
        """The row and product classes among them, by their place in the typespace."""

    @property
    def typespace(self) -> types.Typespace:
        """The types named so far."""
        return types.Typespace(tuple(type_ for _, type_ in self.types))

    def row(self, row: RowShape, path: str = "") -> ColumnType:
        """Return the type of a row or product class: a Ref to a product.

        Raises:
            AnnotationError: A column's annotation cannot be.
        """
        if (known := self._known.get(row)) is not None:
            return known
        if row in self._in_progress:
            circle = [*self._in_progress[self._in_progress.index(row) :], row]
            written = " -> ".join(each.name for each in circle)
            raise AnnotationError(
                path, f"recursive type {written}: rows have a bounded depth; refer to another row by its key instead"
            )
        self._in_progress.append(row)
        try:
            columns = tuple(self.column(row, column, path) for column in row.columns)
        finally:
            self._in_progress.pop()
        names = tuple(column.name for column in row.columns)
        elements = (types.Element(name, column.type) for name, column in zip(names, columns, strict=True))
        product = types.Product(tuple(elements))
        shape = objects.ObjectShape(row.factory, names, tuple(column.shape for column in columns))
        self.rows[len(self.types)] = row
        self._known[row] = ColumnType(self._name(row.name, product), shape)
        return self._known[row]

    def column(self, row: RowShape, column: ColumnShape, path: str = "") -> ColumnType:
        """Return the type of one column."""
        namespace = dict(self._namespaces.get(column.owner.__module__, {}))
        namespace.setdefault(row.name, row.row_class)
        return self.read(column.annotation, namespace, f"{path}.{column.name}" if path else f"{row.name}.{column.name}")

    def read(self, annotation: Any, namespace: Mapping[str, Any], path: str) -> ColumnType:
        """Return what an annotation means.

        Args:
            annotation: What stands behind the colon: an object, or text.
            namespace: Where text is resolved.
            path: How the place is called in errors.

        Raises:
            AnnotationError: It is no column type.
        """
        annotation = resolved(annotation, namespace, path)
        if isinstance(annotation, SumType):
            return self._union(annotation.name, annotation.classes, path)
        if isinstance(annotation, OptionalSumType):
            return _option(self._union(annotation.inner.name, annotation.inner.classes, path))
        if type(annotation).__name__ == "TypeAliasType":
            return self._alias(annotation, namespace, path)
        origin = get_origin(annotation)
        if origin is Annotated:
            return _annotated(annotation, path)
        if origin in (Union, python_types.UnionType):
            return self._option_or_union(get_args(annotation), namespace, path)
        if origin is list:
            return _list(self.read(get_args(annotation)[0], namespace, f"{path}[]"))
        return self._single(annotation, origin, path)

    def _single(self, annotation: Any, origin: Any, path: str) -> ColumnType:
        if _hashable(annotation) and annotation in _PLAIN:
            return ColumnType(_PLAIN[annotation], None)
        if _hashable(annotation) and annotation in _SPECIAL:
            return ColumnType(*_SPECIAL[annotation])
        if (row := shape_of(annotation)) is not None:
            return self.row(row, path)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return self._enum(annotation, path)
        raise AnnotationError(path, _hint(annotation, origin))

    def _alias(self, annotation: Any, namespace: Mapping[str, Any], path: str) -> ColumnType:
        """Return what a `type Shape = …` statement means."""
        arguments = get_args(annotation.__value__)
        if arguments and all(shape_of(argument) is not None for argument in arguments):
            return self._union(annotation.__name__, arguments, path)
        return self.read(annotation.__value__, namespace, path)

    def _option_or_union(self, arguments: tuple[Any, ...], namespace: Mapping[str, Any], path: str) -> ColumnType:
        inner = tuple(argument for argument in arguments if argument is not type(None))
        if len(inner) == 1:
            return _option(self.read(inner[0], namespace, path))
        rows = tuple(_resolve(each, namespace, path) if isinstance(each, str | ForwardRef) else each for each in inner)
        if not all(shape_of(each) is not None for each in rows):
            others = ", ".join(_called(each) for each in rows if shape_of(each) is None)
            raise AnnotationError(path, f"a union is one of `@product` classes; {others} is none")
        if (name := self._names.get(rows)) is None:
            written = " | ".join(each.__name__ for each in rows)
            raise AnnotationError(
                path, f"a union needs a name: write `Shape = {written}` at module level and use that name here"
            )
        union = self._union(name, rows, path)
        return union if len(inner) == len(arguments) else _option(union)

    def _union(self, name: str, classes: tuple[Any, ...], path: str) -> ColumnType:
        if (known := self._known.get((name, classes))) is not None:
            return known
        for each in classes:
            if shape_of(each) is None:
                raise AnnotationError(path, f"{name} has the variant {_called(each)}, which is no `@product` class")
        variants = tuple(self.row(_shape(each), f"{path}|{each.__name__}") for each in classes)
        elements = tuple(types.Element(each.__name__, v.type) for each, v in zip(classes, variants, strict=True))
        shape = objects.UnionShape(classes, tuple(variant.shape for variant in variants))
        self._known[name, classes] = ColumnType(self._name(name, types.Sum(elements)), shape)
        return self._known[name, classes]

    def _enum(self, python: type[enum.Enum], path: str) -> ColumnType:
        if (known := self._known.get(python)) is not None:
            return known
        members = tuple(python)
        if not members:
            raise AnnotationError(
                path, f"{python.__name__} is an enum without members: no row could have a value of it"
            )
        elements = tuple(types.Element(member.name, types.UNIT) for member in members)
        self._known[python] = ColumnType(self._name(python.__name__, types.Sum(elements)), objects.EnumShape(members))
        return self._known[python]

    def _name(self, name: str, type_: types.AlgebraicType) -> types.Ref:
        self.types.append((name, type_))
        return types.Ref(len(self.types) - 1)


def _union_names(namespaces: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, ...], str]:
    """Return the module-level name of every union of row classes, the first one where there are several."""
    found: dict[tuple[Any, ...], str] = {}
    for namespace in namespaces:
        for name, value in namespace.items():
            if get_origin(value) in (Union, python_types.UnionType):
                rows = tuple(argument for argument in get_args(value) if argument is not type(None))
                if len(rows) > 1 and all(shape_of(row) is not None for row in rows):
                    found.setdefault(rows, name)
    return found


def resolved(annotation: Any, namespace: Mapping[str, Any], path: str) -> Any:
    """Return the object that an annotation is, once its text has been resolved.

    Raises:
        AnnotationError: A name in it is not there.
    """
    while isinstance(annotation, str | ForwardRef):  # text within text, where annotations are postponed
        annotation = _resolve(annotation, namespace, path)
    return annotation


def _resolve(annotation: str | ForwardRef, namespace: Mapping[str, Any], path: str) -> Any:
    text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
    try:
        return eval(text, dict(namespace))
    except NameError as error:
        raise AnnotationError(
            path, f"the annotation {text!r} cannot be resolved: {error}; import it at module level", unresolved=True
        ) from None
    except Exception as error:  # noqa: BLE001 - the author's text, whatever it does
        raise AnnotationError(path, f"the annotation {text!r} cannot be resolved: {error}") from None


def _annotated(annotation: Any, path: str) -> ColumnType:
    python, *metadata = get_args(annotation)
    for each in metadata:
        if isinstance(each, types.Scalar):
            return ColumnType(each, None)
    if python in _PLAIN:
        return ColumnType(_PLAIN[python], None)
    raise AnnotationError(path, f"{annotation} is no column type; write the type without Annotated")


def _option(inner: ColumnType) -> ColumnType:
    return ColumnType(types.option(inner.type), inner.shape and objects.OptionShape(inner.shape))


def _list(element: ColumnType) -> ColumnType:
    if element.type == types.U8:  # whose plain value is bytes, but the author asked for a list
        return ColumnType(types.BYTES, objects.Converted(list, bytes))
    return ColumnType(types.Array(element.type), element.shape and objects.ListShape(element.shape))


def _shape(row_class: Any) -> RowShape:
    shape = shape_of(row_class)
    assert shape is not None, "the caller has asked"
    return shape


def _hashable(value: Any) -> bool:
    return type(value).__hash__ is not None


def _called(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or repr(annotation)


def _hint(annotation: Any, origin: Any) -> str:
    """Return what is wrong with an annotation and what to write instead."""
    for key in (annotation, origin):
        if _hashable(key) and key in _HINTS and not (key is None and annotation is not None):
            return _HINTS[key]
    if origin is typing.Literal:
        return "Literal is no column type: make an enum.Enum"
    if isinstance(annotation, TableHandle):
        return f"{annotation!r} is a table, not a type: write {annotation.row_class.__name__}"
    if isinstance(annotation, type):
        return f"{annotation.__name__} is no column type: put `@product` on the class, or use a type of stdb"
    return f"{_called(annotation)} is no column type"
