"""View calls: what stands in FROM for a view, to the arguments of its parameters.

Responsible for: `v(42, 'x')`, its literals and their types, where such a call may stand.
Not responsible for: finding the view (`binder`), its rows (`stdb.datastore.views`).

Source: spec 09 section 9.
"""

from typing import TYPE_CHECKING, Any

from stdb.errors import QueryError
from stdb.sats import bsatn, satn
from stdb.sats.types import F32, F64, AlgebraicType
from stdb.sql.literals import expect_bool, is_comparable, parse_literal
from stdb.sql.shapes import SelectShape, ShapedTable, Star
from stdb.sql.syntax import Expression, Literal, LiteralKind, NotPositional, Prefix

if TYPE_CHECKING:
    from stdb.datastore.views import ViewShape

__all__ = ["arguments_of", "check_place", "check_table_call"]


def check_table_call(shaped: ShapedTable) -> None:
    """Check that a table is not given arguments.

    Raises:
        QueryError: It is.
    """
    if shaped.args:
        raise QueryError(f"`{shaped.name}` is a table, not a view; it does not take arguments")


def check_place(shaped: ShapedTable, select: SelectShape) -> None:
    """Check that a call with arguments stands alone in its query.

    Raises:
        QueryError: Something stands beside it.
    """
    if not shaped.args:
        return
    if select.joins:
        raise QueryError(
            f"Unsupported view call in a JOIN: `{shaped.name}`. "
            "A view that takes arguments can only be queried by itself"
        )
    beside = (select.where, select.limit, select.offset)
    is_bare = not (select.group_by or select.order_by) and all(part is None for part in beside)
    if not is_bare or not isinstance(select.projection, Star):
        raise QueryError(
            f"View `{shaped.name}` takes arguments, so it can only be queried as `SELECT * FROM {shaped.name}(...)`"
        )


def arguments_of(shaped: ShapedTable, view: "ViewShape") -> bytes:
    """Return the arguments of a view as BSATN of its parameters.

    Raises:
        QueryError: They are too few, too many, no literals, or of other types.
    """
    params, given = view.params.elements, shaped.args or ()
    literals = [_literal(argument) for argument in given]
    if len(given) != len(params):
        raise QueryError(f"View `{shaped.name}` takes {len(params)} argument(s), but {len(given)} were given")
    for param in params:
        if not is_comparable(param.type):
            shown = satn.format_type(param.type)
            raise QueryError(
                f"Parameter `{param.name}` of view `{shaped.name}` has type {shown}, which cannot be passed from SQL"
            )
    values = tuple(_value(literal, param.type) for literal, param in zip(literals, params, strict=True))
    return bsatn.codec(view.params).encode(values)


def _literal(argument: Expression | NotPositional) -> Literal:
    match argument:
        case Literal(kind) if kind is not LiteralKind.OTHER:
            return argument
        case Prefix("-" | "+" as sign, Literal(LiteralKind.NUMBER, text)):
            return Literal(LiteralKind.NUMBER, sign + text, sign + text)
        case NotPositional():
            raise QueryError(f"Unsupported view argument: {argument}. View arguments must be positional literals")
    raise QueryError(f"Unsupported view argument: {argument}. View arguments must be literals")


def _value(literal: Literal, type_: AlgebraicType) -> Any:
    """Return the value of a literal, typed as in a comparison; there is one zero."""
    if literal.kind is LiteralKind.BOOL:
        expect_bool(type_)
        return literal.text == "true"
    value = parse_literal(literal.text, type_)
    return value + 0.0 if type_ in (F32, F64) else value
