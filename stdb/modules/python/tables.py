"""Tables and products as an author declares them.

Responsible for: the decorators `table` and `product`, `sum_type`, second tables over one row class (`TableHandle`).
Not responsible for: row classes (`rows`), what declarations become (`definition`).

Source: spec 08, "Tables".
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, dataclass_transform, overload

from stdb.modules.python.columns import Index, Marker, Unique, auto_inc, column, index, primary_key, unique
from stdb.modules.python.declarations import (
    Place,
    TableDeclaration,
    caller_module,
    caller_place,
    register,
    report,
)
from stdb.modules.python.rows import ColumnShape, RowShape, build_row_class, check_names, collect_columns, shape_of
from stdb.modules.python.scalars import u64
from stdb.sats.names import snake_case
from stdb.sats.special import ScheduleAt

__all__ = ["SumType", "TableHandle", "is_due_time", "product", "sum_type", "table"]

R = TypeVar("R")


class TableHandle(Generic[R]):
    """A second table over a row class; `ctx.db[handle]` is its `Table`."""

    __slots__ = ("name", "row_class")

    def __init__(self, row_class: type[R], name: str) -> None:
        self.row_class = row_class
        self.name = name

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"table({self.row_class.__name__}, name={self.name!r})"


class SumType:
    """A named union of product classes, made by `sum_type`."""

    __slots__ = ("classes", "name")

    def __init__(self, name: str, classes: tuple[type, ...]) -> None:
        self.name = name
        self.classes = classes

    def __repr__(self) -> str:
        """Return the name."""
        return self.name

    def __or__(self, other: object) -> "OptionalSumType":
        """Return the type of an optional value, as `Shape | None`."""
        if other is not None:
            raise TypeError(f"{self.name} | {other!r}: only | None can follow; name the wider union by itself")
        return OptionalSumType(self)

    __ror__ = __or__

    def __call__(self) -> None:
        """Refuse to be called; typing needs annotations to be callable."""
        raise TypeError(f"{self.name} is a union: make one of {', '.join(cls.__name__ for cls in self.classes)}")


class OptionalSumType:
    """`Shape | None` for a `SumType`."""

    __slots__ = ("inner",)

    def __init__(self, inner: SumType) -> None:
        self.inner = inner


@overload
@dataclass_transform(kw_only_default=True, field_specifiers=(primary_key, unique, index, auto_inc, column))
def table(row_class: type[R], /) -> type[R]: ...
@overload
def table(
    row_class: type[R],
    /,
    *,
    name: str,
    public: bool = False,
    event: bool = False,
    indexes: Sequence[Index] = (),
    uniques: Sequence[Unique] = (),
) -> TableHandle[R]: ...
@overload
@dataclass_transform(kw_only_default=True, field_specifiers=(primary_key, unique, index, auto_inc, column))
def table(
    *,
    public: bool = False,
    name: str | None = None,
    event: bool = False,
    scheduled: bool = False,
    indexes: Sequence[Index] = (),
    uniques: Sequence[Unique] = (),
) -> Callable[[type[R]], type[R]]: ...
def table(
    row_class: type[Any] | None = None,
    /,
    *,
    public: bool = False,
    name: str | None = None,
    event: bool = False,
    scheduled: bool = False,
    indexes: Sequence[Index] = (),
    uniques: Sequence[Unique] = (),
) -> Any:
    """Make a class with annotations a row type and declare a table of it; of a row class, declare another table.

    Everybody may read a `public` table; rows of an `event` table exist only in the transaction that inserts them.
    Each row of a `scheduled` table calls the function declared with `scheduled=` that class, when its `scheduled_at`
    is due. The class gets the columns `scheduled_id: u64 = primary_key(auto_inc=True)` and `scheduled_at: ScheduleAt`
    where it does not declare them itself, as it should for type checkers.
    """
    place, module = caller_place(), caller_module()

    def declare(cls: type[Any]) -> type[Any]:
        created = _make(cls, is_table=True, place=place, is_scheduled=scheduled)
        if (shape := shape_of(created)) is not None:
            _declare(created, shape, snake_case(cls.__name__) if name is None else name, cls.__module__)
        return created

    def _declare(key: Any, shape: RowShape, table_name: str, owner: str) -> None:
        register(
            TableDeclaration(
                *(key, shape, table_name, public, event, tuple(indexes), tuple(uniques), owner, place, scheduled)
            )
        )

    if row_class is None:
        return declare
    if (shape := shape_of(row_class)) is None:
        return declare(row_class)
    if name is None:
        report(place, f"table({row_class.__name__}): a second table of a row class needs a name of its own: name=…")
        return row_class
    if scheduled:
        report(place, f"table({row_class.__name__}, scheduled=True): a scheduled table needs a class of its own")
        return row_class
    handle: TableHandle[Any] = TableHandle(row_class, name)
    _declare(handle, shape, name, module)
    return handle


@dataclass_transform(kw_only_default=True, field_specifiers=(column,))
def product(cls: type[R], /) -> type[R]:
    """Make a class with annotations a value type for columns and arguments."""
    return _make(cls, is_table=False, place=caller_place())


def sum_type(name: str, *classes: type) -> Any:
    """Return the union of product classes under a name; `Shape = Circle | Square` at module level does the same."""
    if len(classes) < 1 or not all(isinstance(cls, type) for cls in classes):
        raise TypeError(f"sum_type({name!r}, …) takes the classes of its variants")
    return SumType(name, classes)


def _make(cls: type[R], *, is_table: bool, place: Place, is_scheduled: bool = False) -> type[R]:
    kind = "table" if is_table else "product"
    if not isinstance(cls, type):
        report(place, f"@{kind} is for classes, got {cls!r}")
        return cls
    for base in cls.__mro__[1:]:
        if shape_of(base) is not None:
            report(
                place,
                f"{cls.__name__} inherits from {base.__name__}, which is a table or product itself: "
                "move the common columns into a class without decorator",
            )
            return cls
    columns = tuple(collect_columns(cls))
    return _build(cls, (*_schedule_columns(cls, columns), *columns) if is_scheduled else columns, is_table, place)


def _schedule_columns(cls: type, columns: tuple[ColumnShape, ...]) -> Iterator[ColumnShape]:
    """Yield the columns that a scheduled table needs and its class does not declare."""
    if not any(column.marker.primary_key or column.name == "scheduled_id" for column in columns):
        yield ColumnShape("scheduled_id", u64, Marker(primary_key=True, unique=True, auto_inc=True), cls)
    if not any(map(is_due_time, columns)):
        yield ColumnShape("scheduled_at", ScheduleAt, Marker(), cls)


def is_due_time(column: ColumnShape) -> bool:
    """Tell whether a column says when its row is due, as far as its name and annotation tell."""
    written = column.annotation
    if isinstance(written, str):
        return column.name == "scheduled_at" or written.rpartition(".")[2].strip("\"' ") == "ScheduleAt"
    return column.name == "scheduled_at" or written is ScheduleAt


def _build(cls: type[R], columns: tuple[ColumnShape, ...], is_table: bool, place: Place) -> type[R]:
    shape = RowShape(cls.__name__, cls.__module__, columns, is_table, place)
    mistakes = list(check_names(cls, columns))
    for name, text in mistakes:
        report(shape.place_of(name), text)
    return cls if mistakes else build_row_class(cls, shape)
