"""Changes by SQL: INSERT, UPDATE, DELETE and SET, checked in full, then run in steps within an open transaction.

Responsible for: names and types of changes, who may make them, which rows they read and write, what they count.
Not responsible for: syntax (`shape`), conditions (`binder`, `plan`), commit and rollback (who opened the transaction).

A statement that fails may have written already; its transaction is to be rolled back. Rows go through the same
`Transaction` as those of reducers: set semantics, unique constraints, auto-increment columns.

Source: spec 06 sections 2.2 (its last part) and 4.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from stdb.datastore.transaction import ROW_BYTES_MAX
from stdb.errors import QueryError, UniqueViolation
from stdb.sats import bsatn
from stdb.sats.types import BOOL, BYTES, STRING, U64, AlgebraicType, Element, Product
from stdb.schema.system_tables import ENVIRONMENT_TABLE
from stdb.sql.binder import Caller, Scope, column_index, find_table, find_view
from stdb.sql.literals import expect_bool, mismatch, parse_integer, parse_literal
from stdb.sql.plan import TablePlan
from stdb.sql.shapes import DeleteShape, InsertShape, Operand, SetShape, ShapedTable, UpdateShape
from stdb.sql.syntax import Literal, LiteralKind
from stdb.sql.work import BATCH, Steps, Work

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table
    from stdb.datastore.transaction import Transaction

__all__ = [
    "ROW_LIMIT_VARIANT",
    "ChangeShape",
    "ChangeStatement",
    "SqlStats",
    "bind_change",
    "check_may_change",
    "check_variable",
]

ROW_LIMIT_VARIANT = 8
"""The U64 variant of the values in st_var."""
_WRITTEN = BATCH // 4
"""Rows written between two chances to pause: to write a row takes several times as long as to read one."""
_U64_MAX = (1 << 64) - 1

ChangeShape: TypeAlias = InsertShape | UpdateShape | DeleteShape | SetShape
"""An allowed statement that changes rows."""


class SqlStats(NamedTuple):
    """Rows that a statement changed."""

    rows_inserted: int = 0
    """Really added: not those that were there already."""
    rows_deleted: int = 0
    rows_updated: int = 0
    """Matched by an UPDATE, whether it changed them or not."""


class ChangeStatement(ABC):
    """A statement that changes rows of `table`, ready to run."""

    def __init__(self, table: "Table") -> None:
        self.table = table

    def steps(self, transaction: "Transaction", work: Work) -> Steps[SqlStats]:
        """Run it in the open transaction; may pause at least once per `BATCH` rows read or written.

        Raises:
            QueryError: Two rows would have one unique key, or the work is more than allowed; roll back.
        """
        try:
            return (yield from self._run(transaction, work))
        except UniqueViolation as error:
            raise QueryError(f"IndexError: {error}") from error

    @abstractmethod
    def _run(self, transaction: "Transaction", work: Work) -> Steps[SqlStats]:
        """Change the rows."""


class _Insert(ChangeStatement):
    """Adds rows that are known in full, INSERT and SET."""

    def __init__(self, table: "Table", rows: list[bytes]) -> None:
        super().__init__(table)
        self._rows = rows

    def _run(self, transaction: "Transaction", work: Work) -> Steps[SqlStats]:
        before = len(self.table)
        yield from _insert_all(transaction, self.table, self._rows, work)
        return SqlStats(rows_inserted=len(self.table) - before)


class _Replacement(_Insert):
    """Sets the value of a variable, whatever it was."""

    def _run(self, transaction: "Transaction", work: Work) -> Steps[SqlStats]:
        """Insert the row; the one of the same name goes."""
        decode = self.table.schema.codec.decode_exact
        names = {decode(row)[0] for row in self._rows}
        before = [row for row in self.table.rows() if decode(row)[0] in names]
        yield from _delete_all(transaction, self.table, before, work)
        return (yield from super()._run(transaction, work))


class _Delete(ChangeStatement):
    """Takes out the rows that match a condition."""

    def __init__(self, plan: TablePlan) -> None:
        super().__init__(plan.table)
        self._plan = plan

    def _run(self, transaction: "Transaction", work: Work) -> Steps[SqlStats]:
        rows = yield from _matching(self._plan, work)
        yield from _delete_all(transaction, self.table, rows, work)
        return SqlStats(rows_deleted=len(rows))


class _Update(ChangeStatement):
    """Takes out all rows that match a condition, then puts them in again with new values."""

    def __init__(self, plan: TablePlan, values: dict[int, bytes]) -> None:
        super().__init__(plan.table)
        self._plan = plan
        self._changed = _replacer(plan.table, values)

    def _run(self, transaction: "Transaction", work: Work) -> Steps[SqlStats]:
        rows = yield from _matching(self._plan, work)
        yield from _delete_all(transaction, self.table, rows, work)
        yield from _insert_all(transaction, self.table, map(self._changed, rows), work)
        return SqlStats(rows_updated=len(rows))


def _matching(plan: TablePlan, work: Work) -> Steps[list[bytes]]:
    """Return the rows that match now; all of them before the first is changed."""
    rows: list[bytes] = []
    for batch in plan.batches(work):
        rows += batch
        yield
    return rows


def _delete_all(transaction: "Transaction", table: "Table", rows: list[bytes], work: Work) -> Steps[None]:
    for part in _parts(rows):
        work.spend(len(part))
        for row in part:
            transaction.delete(table, row)
        yield


def _insert_all(transaction: "Transaction", table: "Table", rows: Iterable[bytes], work: Work) -> Steps[None]:
    size = 0
    for part in _parts(rows):
        work.spend(len(part))
        size += sum(map(len, part))
        if size > ROW_BYTES_MAX:  # commit would refuse it, unless rows fall into one; not worth the memory
            raise QueryError(f"the statement writes more than {ROW_BYTES_MAX} bytes of rows: narrow it with WHERE")
        for row in part:
            transaction.insert(table, row)
        yield


def _parts(rows: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(rows)
    while part := list(islice(remaining, _WRITTEN)):
        yield part


def _replacer(table: "Table", values: dict[int, bytes]) -> Callable[[bytes], bytes]:
    """Return the function that replaces the values of some columns of a row; the rest is kept to the bit."""
    types = [column.type for column in table.schema.definition.columns]
    pieces, start = [], 0
    for column in sorted(values):
        pieces.append((_skip(types[start:column]), _skip([types[column]]), values[column]))
        start = column + 1

    def changed(row: bytes) -> bytes:
        parts: list[bytes] = []
        at = 0
        for skip_kept, skip_old, new in pieces:
            end = skip_kept(row, at)
            parts += row[at:end], new
            at = skip_old(row, end)
        parts.append(row[at:])
        return b"".join(parts)

    return changed


def _skip(types: list[AlgebraicType]) -> Callable[[bytes, int], int]:
    """Return the function from the start of values in a row to their end."""
    codec = bsatn.codec(Product(tuple(Element(None, type_) for type_ in types)))
    if codec.fixed_size is None:
        return codec.skip
    size = codec.fixed_size
    return lambda row, at: at + size


# From a shape to a statement.


def bind_change(shape: ChangeShape, datastore: "Datastore", caller: Caller) -> ChangeStatement:
    """Return a change with everything resolved and typed.

    Raises:
        QueryError: A name or type that does not fit, a system table, a caller who may not change rows.
    """
    if not isinstance(shape, SetShape):
        _refuse_view(shape, datastore, caller)
    match shape:
        case SetShape():
            statement = _set(shape, datastore, caller)
        case InsertShape():
            table = find_table(datastore, shape.table, caller)
            ordered = _in_order(shape, table) if caller.language.inserts_by_name else shape
            statement = _Insert(table, _rows(ordered, table))
        case UpdateShape():
            table = find_table(datastore, shape.table.name, caller)
            values = _assigned(shape, table)
            statement = _Update(_plan(shape.table, shape.where, datastore, caller), values)
        case DeleteShape():
            statement = _Delete(_plan(shape.table, shape.where, datastore, caller))
    name = statement.table.schema.name
    if name == ENVIRONMENT_TABLE.name:
        raise QueryError("Database environment variables can only be changed by publishing")
    if statement.table.schema.is_system and name != "st_var":
        raise QueryError(f"`{name}` is a system table; DML on system tables is not supported")
    check_may_change(caller)
    return statement


def check_may_change(caller: Caller) -> None:
    """Raise QueryError unless this caller may change rows and see the settings of the database."""
    if not caller.is_owner:
        raise QueryError(f"Caller {caller.identity[::-1].hex()} is not authorized to run SQL DML statements")


def _refuse_view(shape: InsertShape | UpdateShape | DeleteShape, datastore: "Datastore", caller: Caller) -> None:
    name = shape.table if isinstance(shape.table, str) else shape.table.name
    view = find_view(datastore, name, caller)
    if view is not None:
        raise QueryError(f"`{view.name}` is a view; DML on views is not supported")


def check_variable(name: str, caller: Caller) -> None:
    """Check the name of a system variable.

    Raises:
        QueryError: There is no such variable.
    """
    if name not in caller.language.variables:
        raise QueryError(f"{name} is not a valid system variable")


def _set(shape: SetShape, datastore: "Datastore", caller: Caller) -> ChangeStatement:
    check_variable(shape.name, caller)
    literal = shape.value
    if literal.kind is not LiteralKind.NUMBER:
        given = {LiteralKind.BOOL: BOOL, LiteralKind.STRING: STRING}.get(literal.kind, BYTES)
        raise mismatch(U64, given)
    value = parse_integer(literal.text, 0, _U64_MAX)
    if value is None:
        raise QueryError(f"The literal expression `{literal.text}` cannot be parsed as type `U64`")
    table = datastore.table("st_var")
    row = table.schema.codec.encode((shape.name, (ROW_LIMIT_VARIANT, value)))
    return (_Replacement if caller.language.keeps_settings else _Insert)(table, [row])


def _in_order(shape: InsertShape, table: "Table") -> InsertShape:
    """Return an INSERT with its values in the order of the table's columns; without a list they are that already.

    Raises:
        QueryError: A name is not of the table or there twice.
    """
    names = tuple(column.name for column in table.schema.definition.columns)
    if not shape.columns:
        return shape._replace(columns=names)
    places = [column_index(table, name) for name in shape.columns]
    for name, place in zip(shape.columns, places, strict=True):
        if place is None:
            raise QueryError(f"`{table.schema.name}` does not have a field `{name}`")
        if places.count(place) > 1:
            raise QueryError(f"Duplicate name `{name}`")
    if len(places) < len(names) or any(len(row) != len(places) for row in shape.rows):
        return shape
    order = sorted(range(len(places)), key=lambda listed: places[listed] or 0)
    return shape._replace(columns=names, rows=tuple(tuple(row[listed] for listed in order) for row in shape.rows))


def _rows(shape: InsertShape, table: "Table") -> list[bytes]:
    """Return the rows of an INSERT; values belong to columns by position, whatever names are listed."""
    columns = table.schema.definition.columns
    if len(shape.columns) != len(columns):
        raise QueryError(
            f"The number of fields ({len(shape.columns)}) in the INSERT does not match "
            f"the number of columns ({len(columns)}) of the table `{table.schema.name}`"
        )
    encode = table.schema.codec.encode
    rows = []
    for row in shape.rows:
        if len(row) != len(columns):
            raise QueryError(
                f"Inserting a row with {len(row)} values into `{table.schema.name}` which has {len(columns)} fields"
            )
        rows.append(encode(tuple(_value(literal, column.type) for literal, column in zip(row, columns, strict=True))))
    return rows


def _assigned(shape: UpdateShape, table: "Table") -> dict[int, bytes]:
    """Return the encoded new values by column; of several for one column the first counts."""
    values: dict[int, bytes] = {}
    for name, literal in shape.assignments:
        column = column_index(table, name)
        if column is None:
            raise QueryError(f"`{table.schema.name}` does not have a field `{name}`")
        type_ = table.schema.definition.columns[column].type
        values.setdefault(column, bsatn.codec(type_).encode(_value(literal, type_)))
    return values


def _value(literal: Literal, type_: AlgebraicType) -> Any:
    """Return a literal that is stored: the kind of literal counts, other than in a comparison."""
    if literal.kind is LiteralKind.BOOL:
        expect_bool(type_)
        return literal.text == "true"
    if literal.kind is LiteralKind.STRING and type_ != STRING:
        raise mismatch(STRING, type_)
    return parse_literal(literal.text, type_)


def _plan(shaped: ShapedTable, where: Operand | None, datastore: "Datastore", caller: Caller) -> TablePlan:
    scope = Scope(caller)
    scope.add(shaped, datastore)
    condition = None if where is None else scope.typed(where, BOOL)[0]
    return TablePlan(scope.relations[0].table, condition, is_parameterised=scope.is_parameterised)
