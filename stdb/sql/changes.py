"""Changes by SQL: INSERT, UPDATE, DELETE and SET, from an allowed statement to one that is checked in full.

Responsible for: names and types of changes, who may make them.
Not responsible for: syntax (`shape`), conditions (`binder`).

Source: spec 06 sections 2.2 (its last part) and 4.
"""

from typing import TYPE_CHECKING, NamedTuple

from stdb.errors import QueryError
from stdb.sats.types import BOOL, BYTES, STRING, U64, AlgebraicType
from stdb.sql.binder import Caller, Scope, column_index, expect_bool, find_table, mismatch
from stdb.sql.literals import parse_integer, parse_literal
from stdb.sql.shape import (
    DeleteShape,
    InsertShape,
    Operand,
    SetShape,
    ShapedTable,
    ShowShape,
    UpdateShape,
)
from stdb.sql.syntax import Literal, LiteralKind

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import Table

__all__ = ["SqlStats", "bind_change", "bind_variable"]

VARIABLES = ("row_limit",)
"""The system variables that SET and SHOW know."""
_U64_MAX = (1 << 64) - 1


class SqlStats(NamedTuple):
    """Rows that a statement changed."""

    rows_inserted: int = 0
    rows_deleted: int = 0
    rows_updated: int = 0


def bind_change(shape: InsertShape | UpdateShape | DeleteShape, datastore: "Datastore", caller: Caller) -> "Table":
    """Check an INSERT, UPDATE or DELETE; return its table.

    Raises:
        QueryError: A name or type that does not fit, a system table, a caller who may not change rows.
    """
    match shape:
        case InsertShape(name):
            table = find_table(datastore, name, caller)
            _check_insert(shape, table)
        case UpdateShape(shaped):
            table = find_table(datastore, shaped.name, caller)
            _check_assignments(shape, table)
            _check_condition(shaped, shape.where, datastore, caller)
        case DeleteShape(shaped, where):
            table = find_table(datastore, shaped.name, caller)
            _check_condition(shaped, where, datastore, caller)
    name = table.schema.name
    if table.schema.is_system and name != "st_var":
        raise QueryError(f"`{name}` is a system table; DML on system tables is not supported")
    _require_owner(caller)
    return table


def bind_variable(shape: SetShape | ShowShape, caller: Caller) -> int | None:
    """Check a SET or SHOW; return the value that SET gives.

    Raises:
        QueryError: No such variable, no such value, a caller who may not SET.
    """
    if shape.name not in VARIABLES:
        raise QueryError(f"{shape.name} is not a valid system variable")
    if isinstance(shape, ShowShape):
        return None
    literal = shape.value
    if literal.kind is not LiteralKind.NUMBER:
        given = {LiteralKind.BOOL: BOOL, LiteralKind.STRING: STRING}.get(literal.kind, BYTES)
        raise mismatch(U64, given)
    value = parse_integer(literal.text, 0, _U64_MAX)
    if value is None:
        raise QueryError(f"The literal expression `{literal.text}` cannot be parsed as type `U64`")
    _require_owner(caller)
    return value


def _require_owner(caller: Caller) -> None:
    if not caller.is_owner:
        raise QueryError(f"Caller {caller.identity[::-1].hex()} is not authorized to run SQL DML statements")


def _check_insert(shape: InsertShape, table: "Table") -> None:
    columns = table.schema.definition.columns
    if len(shape.columns) != len(columns):
        raise QueryError(
            f"The number of fields ({len(shape.columns)}) in the INSERT does not match "
            f"the number of columns ({len(columns)}) of the table `{table.schema.name}`"
        )
    for row in shape.rows:
        if len(row) != len(columns):
            raise QueryError(
                f"Inserting a row with {len(row)} values into `{table.schema.name}` which has {len(columns)} fields"
            )
        for literal, column in zip(row, columns, strict=True):
            _check_given(literal, column.type)


def _check_given(literal: Literal, type_: AlgebraicType) -> None:
    """Check a literal that is stored: the kind of literal counts, other than in a comparison."""
    if literal.kind is LiteralKind.BOOL:
        expect_bool(type_)
    elif literal.kind is LiteralKind.STRING and type_ != STRING:
        raise mismatch(STRING, type_)
    else:
        parse_literal(literal.text, type_)


def _check_assignments(shape: UpdateShape, table: "Table") -> None:
    for name, literal in shape.assignments:
        column = column_index(table, name)
        if column is None:
            raise QueryError(f"`{table.schema.name}` does not have a field `{name}`")
        _check_given(literal, table.schema.definition.columns[column].type)


def _check_condition(shaped: ShapedTable, where: Operand | None, datastore: "Datastore", caller: Caller) -> None:
    scope = Scope(caller)
    scope.add(shaped, datastore)
    if where is not None:
        scope.typed(where, BOOL)
