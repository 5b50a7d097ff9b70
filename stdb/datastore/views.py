"""Views as the datastore and SQL see them: what a view is, and who has its rows.

Responsible for: `ViewShape`, from a module's definition; the Protocol `Views`.
Not responsible for: running views (`stdb.modules.views`), their rows in the catalogue (`catalog`).

In the catalogue a view has a backing table whose first column is hidden, as the reference has it; no rows are ever kept
for it. The rows of a view are those of its *instances*: one table in memory for each caller (one for all where the view
is anonymous) and arguments that somebody reads. Instances have ids of their own from VIEW_ID_FIRST on; clients are
shown the id of the backing table. They are in no record of the log, and gone when the database stops.

Source: spec 04 section 12, "Views as tables"; spec 06 section 8.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from stdb.datastore.steps import Steps
from stdb.errors import SchemaError
from stdb.sats import satn
from stdb.sats.types import U256, AlgebraicType, Array, Element, Product, option_inner
from stdb.sats.typespace import inline
from stdb.schema.model import Access, ColumnDef, IndexAlgorithm, IndexDef, ModuleDef, TableDef, UniqueDef, ViewDef

if TYPE_CHECKING:
    from stdb.datastore.table import Table

__all__ = ["HIDDEN_COLUMN", "ViewShape", "Views", "backing_table", "instance_table", "view_shape"]

T = TypeVar("T")
HIDDEN_COLUMN = ColumnDef("arg_hash", "arg_hash", U256)
"""The first column of every backing table: the caller and the arguments, hashed. No query can name it."""


@dataclass(frozen=True, slots=True)
class ViewShape:
    """What a view is to those who ask for its rows. Two are equal if what clients hold of the one fits the other."""

    name: str
    accessor: str = field(compare=False)
    is_public: bool = field(compare=False)
    is_anonymous: bool
    params: Product
    """All types inlined, as those of the columns."""
    columns: tuple[ColumnDef, ...] = field(compare=False)
    primary_key: int | None = None
    is_optional: bool = field(default=False, compare=False)
    """It has one row at most."""
    row_type: Product = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "row_type", Product(tuple(Element(each.name, each.type) for each in self.columns)))


def view_shape(view: ViewDef, definition: ModuleDef) -> ViewShape:
    """Return the shape of one of a module's views. Columns that are those of a table have its accessors.

    Raises:
        SchemaError: Its result is not rows of a product, or its primary key is no column.
    """
    row = inline(_row_type(view), definition.typespace)
    params = inline(view.params, definition.typespace)
    assert isinstance(params, Product), "a product stays one"
    if not isinstance(row, Product):
        raise SchemaError([f"View {view.name} has invalid return type {satn.format_type(view.return_type)}"])
    same = next((table.columns for table in definition.tables if table.row_type == row), None)
    columns = same or tuple(ColumnDef(each.name or "", each.name or "", each.type) for each in row.elements)
    names = [column.name for column in columns]
    if view.primary_key is not None and view.primary_key not in names:
        raise SchemaError([f"Primary key column {view.primary_key} for view {view.name} not found"])
    return ViewShape(
        view.name,
        view.accessor,
        view.is_public,
        view.is_anonymous,
        params,
        tuple(ColumnDef(column.name, column.accessor, column.type) for column in columns),
        None if view.primary_key is None else names.index(view.primary_key),
        is_optional=option_inner(view.return_type) is not None,
    )


def _row_type(view: ViewDef) -> AlgebraicType:
    """Return the type of the rows: that of an array's or an option's element, or of a query's `__query__`."""
    match view.return_type:
        case Array(row):
            return row
        case Product((Element("__query__", row),)):
            return row
    return option_inner(view.return_type) or view.return_type


def instance_table(shape: ViewShape) -> TableDef:
    """Return an instance of a view as a table: the columns of its rows, an index on the primary key."""
    keys = () if shape.primary_key is None else ((shape.primary_key,),)
    return _table(shape, shape.columns, shape.primary_key, keys, keys)


def backing_table(shape: ViewShape) -> TableDef:
    """Return the table that the catalogue has for a view, whose own primary key it does not tell."""
    keys: tuple[tuple[int, ...], ...] = () if shape.primary_key is None else ((0, shape.primary_key + 1),)
    return _table(shape, (HIDDEN_COLUMN, *shape.columns), None, ((0,), *keys), keys)


def _table(
    shape: ViewShape,
    columns: tuple[ColumnDef, ...],
    primary_key: int | None,
    indexed: tuple[tuple[int, ...], ...],
    unique: tuple[tuple[int, ...], ...],
) -> TableDef:
    def named(places: tuple[int, ...]) -> str:
        return "_".join((shape.name, *(columns[place].name for place in places)))

    def index(places: tuple[int, ...]) -> IndexDef:
        name = f"{named(places)}_idx_btree"
        return IndexDef(name, None, IndexAlgorithm.BTREE, places, name)

    return TableDef(
        shape.name,
        shape.accessor,
        0,
        columns,
        primary_key,
        tuple(map(index, indexed)),
        tuple(UniqueDef(f"{named(places)}_key", places) for places in unique),
        access=Access.PUBLIC if shape.is_public else Access.PRIVATE,
    )


class Views(Protocol):
    """The views of one database; a Datastore has none or one of these."""

    def find(self, name: str) -> ViewShape | None:
        """Return the view of that canonical name or, where no view has it, of that accessor; None."""

    def shapes(self) -> Iterable[ViewShape]:
        """Return all views."""

    def instance(self, shape: ViewShape, sender: bytes, args: bytes) -> "Table":
        """Return a view's rows for a caller and arguments (BSATN of the parameters), up to date.

        It stays so with every transaction for as long as it is held. Not within a transaction that may roll back.

        Raises:
            QueryError: The view failed; carries the text for the caller.
        """

    def patiently(self, work: Callable[[], T]) -> Steps[T]:
        """Return what `work` does, which may ask for instances; those that are not there are made first, in steps.

        `work` is called again for each of these: it changes nothing. Raises what `work` raises.
        """

    def instances(self) -> "Iterable[Table]":
        """Return all instances."""

    def hold(self, table: "Table") -> None:
        """Keep an instance up to date until as many calls of `release`; other tables are none of it."""

    def release(self, table: "Table") -> None:
        """Undo one `hold`."""

    def sweep(self) -> None:
        """Forget the instances that nobody holds."""
