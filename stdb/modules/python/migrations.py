"""Migrations: functions that say what becomes of rows when their table changes in a way that no automatic rule knows.

Responsible for: the decorator `migrate`, `OldRow`, `MigrationContext`; giving old rows to a function, storing what it
returns, errors with their place.
Not responsible for: when one is needed (`stdb.actors.updates`), the new tables (`stdb.datastore`), the transaction.

Source: spec 08, "Functions".
"""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar, overload

from stdb.errors import ModuleFault, ReducerError, ReducerTimeout
from stdb.modules.protocol import MigrationCall
from stdb.modules.python.context import MAKERS, OF_EVERY_CALL, Surroundings
from stdb.modules.python.declarations import (
    Finding,
    MigrationDeclaration,
    Place,
    TableDeclaration,
    caller_place,
    function_place,
    register,
    report,
    shown_path,
)
from stdb.modules.python.environment import Variables
from stdb.modules.python.output import describe_failure, failure_place, failure_text, shown_value
from stdb.modules.python.rows import shape_of
from stdb.modules.python.tables import TableHandle
from stdb.sats import bsatn, objects
from stdb.sats.objects import Converted, ObjectShape, Shape
from stdb.sats.special import Identity, Timestamp
from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    IDENTITY,
    SCHEDULE_AT,
    TIME_DURATION,
    TIMESTAMP,
    UUID,
    AlgebraicType,
    Array,
    Product,
    Sum,
    option_inner,
)

if TYPE_CHECKING:
    from stdb.datastore.table import TableSchema
    from stdb.datastore.transaction import Transaction
    from stdb.modules.python.database import Database
    from stdb.modules.python.entries import Bound

__all__ = ["ROWS_A_LIMIT", "BuiltMigration", "MigrationContext", "OldRow", "OldVariant", "migrate"]

R = TypeVar("R")
ROWS_A_LIMIT = 1000
"""So many rows together have the time that one reducer has."""


class OldRow:
    """A row, or a product in one, as it was stored: attributes by the old names.

    Columns that are the same in the new table have the same objects as there. Of others the special types are as
    everywhere; products are OldRows, variants OldVariants.
    """

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...], *values: Any) -> None:
        self._names = names
        self._values = values

    @property
    def columns(self) -> tuple[str, ...]:
        """The old names, in the order of the columns. A column of this name is `old["columns"]`."""
        return self._names

    def __getitem__(self, name: str) -> Any:
        """Return an old column's value. Raises KeyError."""
        if name not in self._names:
            raise KeyError(name)
        return self._values[self._names.index(name)]

    def __getattr__(self, name: str) -> Any:
        """Return an old column's value."""
        if name not in self._names:
            raise AttributeError(f"the old row has no column {name!r}; it has {', '.join(self._names) or 'none'}")
        return self._values[self._names.index(name)]

    def __eq__(self, other: object) -> bool:
        """Tell whether names and values are the same."""
        if not isinstance(other, OldRow):
            return NotImplemented
        return (self._names, self._values) == (other._names, other._values)

    __hash__ = None  # type: ignore[assignment]  # as rows: they may hold lists

    def __repr__(self) -> str:
        """Return names and values."""
        pairs = zip(self._names, self._values, strict=True)
        return f"OldRow({', '.join(f'{name}={value!r}' for name, value in pairs)})"


class OldVariant(NamedTuple):
    """A value of an enum or a union as it was stored."""

    name: str
    value: Any = None
    """What the variant holds; None for a member of an enum."""


class MigrationContext:
    """When a module is published, and its tables. Valid during the migration; `db` has rows as far as they are new."""

    db: "Database"
    """The module's tables as they are from now on."""
    timestamp: Timestamp
    """When the module was published."""
    database_identity: Identity
    """Which database this is."""
    rng: Random
    """Random numbers that depend on the time alone."""

    env: Variables
    """The module's environment variables."""

    def __init__(self, db: "Database", call: "_Moment", around: Surroundings) -> None:
        self.db = db
        self._call = call
        self._around = around

    if not TYPE_CHECKING:  # a type checker would believe that every attribute exists

        def __getattr__(self, name: str) -> Any:
            """Make an attribute that was not read before."""
            if name not in OF_EVERY_CALL:
                known = ", ".join(("db", *OF_EVERY_CALL))
                raise AttributeError(f"a migration's context has no attribute {name!r}; it has {known}")
            value = MAKERS[name](self)
            setattr(self, name, value)
            return value


class _Moment(NamedTuple):
    timestamp_us: int


@overload
def migrate(
    table: str, /
) -> Callable[[Callable[[OldRow, MigrationContext], None]], Callable[[OldRow, MigrationContext], None]]: ...
@overload
def migrate(
    table: type[R] | TableHandle[R], /
) -> Callable[[Callable[[OldRow, MigrationContext], R | None]], Callable[[OldRow, MigrationContext], R | None]]: ...
def migrate(table: Any, /) -> Any:
    """Say what becomes of the rows of a table when it changes in a way that is not done automatically.

    `@migrate(User)` stands before `def user(old: OldRow, ctx: MigrationContext) -> User | None`, which is called once
    with every row of the table as it was and returns the new row, or None to drop it. `@migrate("old_name")` is for a
    table that the module does not have any more: its function returns nothing.
    """
    place = caller_place()
    if not (isinstance(table, str | TableHandle) or shape_of(table) is not None):
        report(place, f"migrate() takes a @table class or the name of a table that is gone, got {table!r}")

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        if not hasattr(function, "__code__"):
            report(place, f"a migration is a function, got {function!r}")
            return function
        register(MigrationDeclaration(function, table, function.__module__, function_place(function)))
        return function

    return declare


# What is declared, checked


class BuiltMigration(NamedTuple):
    """A declared migration and the table it is for; `declared` is None for a table that is gone."""

    declaration: MigrationDeclaration
    name: str
    declared: TableDeclaration | None

    @property
    def place(self) -> Place:
        """Where the function stands, as its author knows it."""
        return Place(shown_path(self.declaration.place.filename), self.declaration.place.line)


def build_migrations(
    declared: list[MigrationDeclaration], tables: list[TableDeclaration]
) -> Iterator[BuiltMigration | Finding]:
    """Yield every migration with its table, or what is wrong with it."""
    by_key = {id(table.key): table for table in tables}
    names = {table.name for table in tables}
    taken: dict[str, Place] = {}
    for each in declared:
        yield from (Finding(each.place, text) for text in _signature_mistakes(each))
        table = None if isinstance(each.table, str) else by_key.get(id(each.table))
        name = each.table if isinstance(each.table, str) else table.name if table else ""
        if not name:
            shown = getattr(each.table, "__name__", repr(each.table))
            yield Finding(each.place, f"migrate({shown}): it is no table of this module")
        elif table is None and name in names:
            yield Finding(each.place, f"migrate({name!r}) is for a table that is gone; write the class of {name}")
        elif name in taken:
            text = f"two migrations are for the table {name}; the other is at {taken[name]}: merge them"
            yield Finding(each.place, text)
        else:
            yield BuiltMigration(each, name, table)
        taken.setdefault(name, each.place)


def _signature_mistakes(declaration: MigrationDeclaration) -> Iterator[str]:
    function, name = declaration.function, declaration.function.__name__
    result = "None" if isinstance(declaration.table, str) else "Row | None"
    wanted = f"def {name}(old: OldRow, ctx: MigrationContext) -> {result}"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        yield f"{name} is async or a generator: write {wanted}"
    parameters = list(inspect.signature(function).parameters.values())
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) != 2 or any(each.kind not in by_place for each in parameters):
        yield f"{name} takes the old row and the context: write {wanted}"


# Running


def run_migration(
    bound: "Bound",
    built: BuiltMigration,
    old: "TableSchema",
    same: dict[str, tuple[AlgebraicType, Shape | None]],
    rows: list[bytes],
    call: MigrationCall,
) -> None:
    """Give rows to a migration, and insert what it returns.

    Args:
        bound: The tables as they are from now on.
        built: The migration.
        old: What the table was.
        same: Type and shape of every column that the table has from now on, by name.
        rows: The rows that the table had.
        call: The circumstances.

    Raises:
        ReducerError, ReducerTimeout, ModuleFault: It failed; the text names table, place and row.
    """
    declaration, transaction = built.declaration, call.transaction
    bound.output.function = declaration.function.__name__
    context = MigrationContext(bound.database, _Moment(transaction.timestamp_us), bound.around)
    decode = _decoder(old, same)
    take = _taker(bound, built)
    for start in range(0, len(rows), ROWS_A_LIMIT):
        with call.limit(transaction):
            for row in rows[start : start + ROWS_A_LIMIT]:
                shown: object = f"0x{row.hex()}"
                try:
                    shown = given = decode(row)
                    take(declaration.function(given, context))
                except BaseException as error:  # noqa: BLE001 - whatever it is, it must not bring the server down
                    _raise_failed(error, built, transaction, shown)
                if transaction.expired:
                    _raise_failed(ReducerTimeout("its time has passed"), built, transaction, shown)


def _taker(bound: "Bound", built: BuiltMigration) -> Callable[[Any], None]:
    """Return what does with a migration's result as it says."""
    function = built.declaration.function.__name__
    if built.declared is None:

        def take_nothing(result: Any) -> None:
            if result is not None:
                why = f"as the table {built.name} is gone"
                raise TypeError(f"{function} returns None, {why}; got {shown_value(result)}")

        return take_nothing
    binding = bound.bindings[built.declared.key]
    row_class, insert = binding.row_class, bound.database[built.declared.key].insert

    def take(result: Any) -> None:
        if result is None:
            return
        if result.__class__ is not row_class:
            raise TypeError(f"{function} returns {row_class.__name__} | None, got {shown_value(result)}")
        insert(result)

    return take


def _raise_failed(error: BaseException, built: BuiltMigration, transaction: "Transaction", row: object) -> NoReturn:
    kind = type(error)  # `isinstance` would ask the exception, which is module code
    place = failure_place(error) or built.place
    text = failure_text(error)
    if not issubclass(kind, ReducerError | ReducerTimeout):
        text = f"{kind.__name__}: {text}".rstrip(": ")
    text = f"the migration of table `{built.name}` failed at {place}: {text}; the row was {shown_value(row)}"
    if transaction.expired or issubclass(kind, ReducerTimeout):
        raise ReducerTimeout(text) from error
    if issubclass(kind, ReducerError):
        raise ReducerError(text) from error
    raise ModuleFault(text, report=describe_failure(error), filename=place.filename, line=place.line) from error


# Old values


def _decoder(old: "TableSchema", same: dict[str, tuple[AlgebraicType, Shape | None]]) -> Callable[[bytes], OldRow]:
    columns = old.definition.columns
    names = tuple(column.name for column in columns)
    shapes: list[Shape | None] = []
    for column in columns:
        type_, shape = same.get(column.name, (None, None))
        shapes.append(shape if type_ == column.type else _shape(column.type))
    codec = bsatn.object_codec(old.row_type, ObjectShape(partial(OldRow, names), names, tuple(shapes)))
    decode: Callable[[bytes], OldRow] = codec.decode_exact
    return decode


def _shape(type_: AlgebraicType) -> Shape | None:
    """Return how values of a type that the new table has not are shown."""
    reader = _reader(type_)
    return None if reader is _as_it_is else Converted(reader, _as_it_is)


def _as_it_is(value: Any) -> Any:
    return value


_SPECIAL = {
    IDENTITY: objects.IDENTITY_SHAPE,
    CONNECTION_ID: objects.ADDRESS_SHAPE,
    TIMESTAMP: objects.TIMESTAMP_SHAPE,
    TIME_DURATION: objects.TIME_DURATION_SHAPE,
    SCHEDULE_AT: objects.SCHEDULE_AT_SHAPE,
    UUID: objects.UUID_SHAPE,
}


def _reader(type_: AlgebraicType) -> Callable[[Any], Any]:
    """Return the function from plain values of a type to what a migration sees."""
    if type_ in _SPECIAL:
        shape = _SPECIAL[type_]
        assert isinstance(shape, Converted)
        return shape.decode
    inner = option_inner(type_)
    if inner is not None:
        read = _reader(inner)
        if read is _as_it_is and option_inner(inner) is None:
            return _as_it_is
        unwrap: Callable[[Any], Any] = (lambda value: value[0]) if option_inner(inner) is not None else _as_it_is
        return lambda value: None if value is None else read(unwrap(value))
    match type_:
        case Array(element) if type_ != BYTES:
            read_element = _reader(element)
            return _as_it_is if read_element is _as_it_is else lambda values: [read_element(each) for each in values]
        case Product(elements):
            names = tuple(element.name or f"_{place}" for place, element in enumerate(elements))
            readers = [_reader(element.type) for element in elements]
            return lambda values: OldRow(names, *(read(each) for read, each in zip(readers, values, strict=True)))
        case Sum(variants):
            variant_readers = [_reader(variant.type) for variant in variants]
            empty = [variant.type == Product(()) for variant in variants]
            return lambda value: OldVariant(
                variants[value[0]].name or f"_{value[0]}",
                None if empty[value[0]] else variant_readers[value[0]](value[1]),
            )
    return _as_it_is
