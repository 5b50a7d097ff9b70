"""From any statement to the few that a surface allows; everything else is refused in the reference's words and order.

Responsible for: the two languages (subscriptions and one-off queries; full SQL), the conversion of expressions, the
qualification of bare names, the bound on nesting.
Not responsible for: whether names exist and types fit (`binder`).

Source: spec 06 sections 3 (the numbered rules 2 to 11) and 4. GROUP BY with aggregates, ORDER BY and OFFSET are ours,
on the SQL surface only.
"""

from collections.abc import Callable
from dataclasses import replace

from stdb.errors import QueryError
from stdb.sql.language import PLAIN, Language
from stdb.sql.shapes import (
    Aggregate,
    Aggregated,
    Assign,
    Chain,
    Columns,
    Count,
    DeleteShape,
    Field,
    InsertShape,
    Logic,
    Operand,
    Order,
    Projection,
    SelectShape,
    Sender,
    SetShape,
    Shape,
    ShapedJoin,
    ShapedTable,
    ShowShape,
    Star,
    UpdateShape,
)
from stdb.sql.syntax import (
    Assignment,
    Column,
    Delete,
    Expression,
    Function,
    Ident,
    Infix,
    Insert,
    Join,
    JoinKind,
    Literal,
    LiteralKind,
    Nested,
    Other,
    Postfix,
    Prefix,
    Query,
    Relation,
    Select,
    SelectItem,
    SetVariable,
    ShowVariable,
    Statement,
    TableFactor,
    Update,
    Wildcard,
)

__all__ = ["AGGREGATES", "NESTING_MAX", "sql_shape", "subscription_shape"]

NESTING_MAX = 1_600
"""Deepest nesting of an expression; a left-deep chain of n terms counts n."""

AGGREGATES = ("count", "sum", "min", "max", "avg")
"""Functions over the rows of a group."""

_COMPARISONS = frozenset(("=", "<>", "<", "<=", ">", ">="))


def subscription_shape(statement: Statement, language: Language = PLAIN) -> SelectShape:
    """Return an allowed query of the subscription language.

    Raises:
        QueryError: The statement is outside it.
    """
    if not isinstance(statement, Query):
        raise QueryError("Unsupported: Non-SELECT queries")
    if not statement.is_plain:
        raise QueryError(f"Unsupported: {statement}")
    if not isinstance(statement.body, Select):
        raise QueryError(f"Unsupported set operation: {statement.body}")
    if not statement.body.is_plain:
        raise QueryError(f"Unsupported SELECT: {statement.body}")
    return _select(statement.body, _projection, language=language)


def sql_shape(statement: Statement, language: Language = PLAIN) -> Shape:
    """Return an allowed statement of full SQL.

    Raises:
        QueryError: The statement is outside it.
    """
    match statement:
        case Query():
            return _query(statement, language)
        case Insert():
            return _insert(statement)
        case Update():
            return _update(statement, language)
        case Delete():
            return _delete(statement, language)
        case SetVariable(name, values, scope) if not scope and len(values) == 1:
            return SetShape(name, _assigned(values[0]))
        case ShowVariable(name):
            return ShowShape(name)
    raise QueryError(f"Unsupported: {statement}")


# Queries.


def _query(query: Query, language: Language) -> SelectShape:
    select = query.body
    if query.with_ or query.tail or not isinstance(select, Select) or not select.is_analytic:
        raise QueryError(f"Unsupported: {query}")
    limit = _row_count(query, query.limit)
    offset = _row_count(query, None if query.offset is None else query.offset.rows)
    order_by = _order_by(query)
    group_by = _group_by(select)
    project = _grouped_projection if group_by else _sql_projection
    return _select(select, project, limit, group_by, order_by, offset, language=language)


def _row_count(query: Query, expression: Expression | None) -> str | None:
    match expression:
        case None:
            return None
        case Literal(LiteralKind.NUMBER, text):
            return text
    raise QueryError(f"Unsupported: {query}")


def _group_by(select: Select) -> tuple[Field, ...]:
    fields = []
    for expression in select.group_by:
        if not isinstance(expression, Column):
            raise QueryError(f"Unsupported GROUP BY expression: {expression}; GROUP BY takes columns")
        fields.append(_field(expression))
    return tuple(fields)


def _order_by(query: Query) -> tuple[Order, ...]:
    found = []
    for expression, direction, nulls in query.order_by:
        if nulls:
            raise QueryError(f"Unsupported: {query}; no value is null, leave NULLS {nulls} out")
        match expression:
            case Column():
                by: Field | str = _field(expression)
            case Literal(LiteralKind.NUMBER, text) if text.isdecimal():
                by = text
            case _:
                raise QueryError(
                    f"Unsupported ORDER BY expression: {expression}; "
                    "ORDER BY takes columns, names of the result and positions in it"
                )
        found.append(Order(by, direction == "DESC"))
    return tuple(found)


def _select(
    select: Select,
    project: Callable[[tuple[SelectItem, ...]], Projection],
    limit: str | None = None,
    group_by: tuple[Field, ...] = (),
    order_by: tuple[Order, ...] = (),
    offset: str | None = None,
    *,
    language: Language,
) -> SelectShape:
    if not select.relations:
        # A list is judged before a missing FROM (ran: `select 1`, `select *`).
        project(select.items)
        raise QueryError("A FROM clause is required")
    table, joins = _from(select.relations)
    where = None if select.where is None else convert(select.where, language=language)
    projection = project(select.items)
    shape = SelectShape(projection, table, joins, where, limit, group_by, order_by, offset)
    return shape if joins and language.infers_tables else _qualified(shape)


def _from(relations: tuple[Relation, ...]) -> tuple[ShapedTable, tuple[ShapedJoin, ...]]:
    if len(relations) > 1:
        raise QueryError("Implicit joins are not supported")
    return _table(relations[0].table), tuple(map(_join, relations[0].joins))


def _table(factor: TableFactor) -> ShapedTable:
    call = factor.call
    table = factor.name if call is None else call.name
    if table is None:
        raise QueryError(f"Unsupported FROM expression: {factor}")
    name = table.value
    alias = name if factor.alias is None else factor.alias.value
    return ShapedTable(name, alias) if call is None else ShapedTable(name, alias, call.args, factor.shown)


def _join(join: Join) -> ShapedJoin:
    if join.kind is JoinKind.OTHER:
        raise QueryError("Non-inner joins are not supported")
    table = _table(join.table)
    if join.on is None:
        return ShapedJoin(table, None)
    match join.on:
        case Infix(Column() as left, (("=", Column() as right),)):
            return ShapedJoin(table, (_field(left), _field(right)))
    raise QueryError("Non-inner joins are not supported")


def _projection(items: tuple[SelectItem, ...]) -> Projection:
    if any(isinstance(item.expression, Wildcard) for item in items):
        if len(items) > 1:
            raise QueryError("Mixed wildcard projections are not supported")
        wildcard = items[0].expression
        assert isinstance(wildcard, Wildcard)
        return Star(None if wildcard.table is None else wildcard.table.value)
    if len(items) == 1 and isinstance(items[0].expression, Function):
        return _aggregate(items[0].expression, items[0].alias)
    return Columns(tuple(_named_column(item) for item in items))


def _aggregate(function: Function, alias: Ident | None) -> Count:
    _check_call(function, alias)
    if alias is None or not function.is_count_star:
        raise QueryError(f"Unsupported aggregate function: {function}")
    return Count(alias.value)


def _check_call(function: Function, alias: Ident | None) -> None:
    if function.has_filter:
        raise QueryError(f"Unsupported projection expression: {function}")
    if alias is None:
        raise QueryError("Aggregate expressions must have column aliases")


def _sql_projection(items: tuple[SelectItem, ...]) -> Projection:
    """Convert a list without GROUP BY: what the reference allows, or aggregates alone."""
    calls = [item.expression for item in items if isinstance(item.expression, Function)]
    is_aggregated = len(calls) == len(items) and all(map(_is_aggregate, calls))
    if not is_aggregated or (len(calls) == 1 and calls[0].is_count_star):
        return _projection(items)
    return _grouped_projection(items)


def _grouped_projection(items: tuple[SelectItem, ...]) -> Aggregated:
    return Aggregated(tuple(map(_grouped_item, items)))


def _grouped_item(item: SelectItem) -> tuple[Field | Aggregate, str]:
    match item.expression:
        case Wildcard() as wildcard:
            raise QueryError(f"SELECT {wildcard} is not supported with GROUP BY; list the grouped columns")
        case Function() as function:
            _check_call(function, item.alias)
            assert item.alias is not None
            return _aggregate_call(function), item.alias.value
    return _named_column(item)


def _is_aggregate(function: Function) -> bool:
    return function.call is not None and function.call.function in AGGREGATES


def _aggregate_call(function: Function) -> Aggregate:
    """Convert a call of an aggregate; only COUNT counts rows and distinct values."""
    call = function.call
    if call is None or not _is_aggregate(function):
        raise QueryError(f"Unsupported aggregate function: {function}")
    if call.function != "count" and (call.column is None or call.is_distinct):
        raise QueryError(f"Unsupported aggregate function: {function}")
    field = None if call.column is None else _field(call.column)
    return Aggregate(call.function, field, call.is_distinct, function.shown)


def _named_column(item: SelectItem) -> tuple[Field, str]:
    if not isinstance(item.expression, Column):
        raise QueryError(f"Unsupported projection expression: {item.expression}")
    field = _field(item.expression)
    return field, field.column if item.alias is None else item.alias.value


def _field(column: Column) -> Field:
    *table, name = (part.value for part in column.parts)
    return Field(".".join(table), name)


# Expressions.


def convert(expression: Expression, depth: int = 0, language: Language = PLAIN) -> Operand:
    """Return an allowed expression; `depth` is how deep it stands.

    Raises:
        QueryError: Outside the language, or nested too deeply.
    """
    _check_depth(depth)
    while isinstance(expression, Nested):
        expression = expression.inner
    match expression:
        case Literal():
            return _literal(expression, language)
        case Column():
            return _field(expression)
        case Infix():
            return _infix(expression, depth, language)
        case Prefix("-" | "+" as sign, Literal(LiteralKind.NUMBER) as number):
            return _signed(sign, number)
        case Prefix() | Postfix() | Function() | Other():
            raise QueryError(f"Unsupported expression: {expression}")


def _check_depth(depth: int) -> None:
    if depth > NESTING_MAX:
        raise QueryError("Recursion limit exceeded, `sql-parser::parse_expr`")


def _literal(literal: Literal, language: Language) -> Literal | Sender:
    if literal.kind is not LiteralKind.OTHER or (language.names_variants and literal.text == "NULL"):
        return literal
    if literal.shown == ":sender":
        return Sender()
    raise QueryError(f"Unsupported literal expression: {literal}")


def _signed(sign: str, number: Literal) -> Literal:
    return Literal(LiteralKind.NUMBER, sign + number.text, sign + number.text)


def _infix(chain: Infix, depth: int, language: Language) -> Operand:
    """Convert a flat chain; the first of n operands stands n - 1 levels below the last operator."""
    terms = len(chain.rest)
    first = convert(chain.first, depth + terms, language)
    converted = []
    for index, (operator, operand) in enumerate(chain.rest):  # a loop: the interpreter counts frames
        converted.append((operator, convert(operand, depth + terms - index, language)))
    for operator, _ in converted:
        if operator not in _COMPARISONS and operator not in ("AND", "OR"):
            raise QueryError(f"Unsupported binary operator: {operator}")
    if converted[0][0] in ("AND", "OR"):
        return Logic(converted[0][0] == "AND", (first, *(operand for _, operand in converted)))
    return Chain(first, tuple(converted))


# Bare names.


def _qualified(select: SelectShape) -> SelectShape:
    """Give every bare column its table, but those of ORDER BY, which may be names of the result."""
    if select.joins:
        _require_qualified(select)
        return select
    alias = select.table.alias
    where = None if select.where is None else qualify(select.where, alias)
    group_by = tuple(_with_alias(field, alias) for field in select.group_by)
    return replace(select, projection=_qualified_projection(select.projection, alias), where=where, group_by=group_by)


def _qualified_projection(projection: Projection, alias: str) -> Projection:
    match projection:
        case Columns(fields):
            return Columns(tuple((_with_alias(field, alias), name) for field, name in fields))
        case Aggregated(items):
            return Aggregated(tuple((_qualified_item(item, alias), name) for item, name in items))
    return projection


def _qualified_item(item: Field | Aggregate, alias: str) -> Field | Aggregate:
    if isinstance(item, Field):
        return _with_alias(item, alias)
    return item if item.field is None else item._replace(field=_with_alias(item.field, alias))


def _with_alias(field: Field, alias: str) -> Field:
    return field if field.alias else Field(alias, field.column)


def qualify(operand: Operand, alias: str) -> Operand:
    """Return an expression in which every bare column belongs to `alias`."""
    match operand:
        case Field():
            return _with_alias(operand, alias)
        case Chain(first, rest):
            return Chain(qualify(first, alias), tuple((operator, qualify(each, alias)) for operator, each in rest))
        case Logic(is_and, terms):
            return Logic(is_and, tuple(qualify(term, alias) for term in terms))
    return operand


def _require_qualified(select: SelectShape) -> None:
    fields = [field for join in select.joins if join.on for field in join.on]
    fields += _fields_of_projection(select.projection)
    fields += select.group_by
    if select.where is not None:
        fields += _fields_of(select.where)
    if not all(field.alias for field in fields):
        raise QueryError("Names must be qualified when using joins")


def _fields_of_projection(projection: Projection) -> list[Field]:
    match projection:
        case Columns(fields):
            return [field for field, _ in fields]
        case Aggregated(items):
            found = (item.field if isinstance(item, Aggregate) else item for item, _ in items)
            return [field for field in found if field is not None]
    return []


def _fields_of(operand: Operand) -> list[Field]:
    match operand:
        case Field():
            return [operand]
        case Chain(first, rest):
            return [*_fields_of(first), *(field for _, each in rest for field in _fields_of(each))]
        case Logic(_, terms):
            return [field for term in terms for field in _fields_of(term)]
    return []


# Changes.


def _insert(insert: Insert) -> InsertShape:
    if not insert.is_plain:
        raise QueryError(f"Unsupported: {insert}")
    if insert.rows is None:
        raise QueryError(f"Unsupported INSERT expression: {insert.source}")
    rows = tuple(tuple(_inserted(value) for value in row) for row in insert.rows)
    return InsertShape(insert.table.value, tuple(column.value for column in insert.columns), rows)


def _inserted(value: Expression) -> Literal:
    literal = _plain_literal(value)
    if literal is None:
        raise QueryError(f"Unsupported INSERT value: {value}")
    return literal


def _assigned(value: Expression) -> Literal:
    literal = _plain_literal(value)
    if literal is None:
        raise QueryError(f"Unsupported column/variable assignment expression: {value}")
    return literal


def _plain_literal(value: Expression) -> Literal | None:
    match value:
        case Literal(LiteralKind.OTHER):
            raise QueryError(f"Unsupported literal expression: {value}")
        case Literal():
            return value
        case Prefix("-" | "+" as sign, Literal(LiteralKind.NUMBER) as number):
            return _signed(sign, number)
    return None


def _update(update: Update, language: Language) -> UpdateShape:
    if not update.is_plain:
        raise QueryError(f"Unsupported: {update}")
    table = _table(update.table.table)
    assignments = tuple(_assignment(each) for each in update.assignments)
    return UpdateShape(table, assignments, _condition(update.where, table.alias, language))


def _assignment(assignment: Assignment) -> Assign:
    return Assign(assignment.column, _assigned(assignment.value))


def _condition(where: Expression | None, alias: str, language: Language) -> Operand | None:
    return None if where is None else qualify(convert(where, language=language), alias)


def _delete(delete: Delete, language: Language) -> DeleteShape:
    if delete.using or delete.tail:
        raise QueryError(f"Unsupported: {delete}")
    if len(delete.relations) > 1:
        raise QueryError("Multi-table DELETE is not supported")
    (relation,) = delete.relations
    factor = relation.table
    if factor.name is None or factor.alias is not None or relation.joins:
        raise QueryError(f"Unsupported table expression in DELETE: {relation}")
    table = _table(factor)
    return DeleteShape(table, _condition(delete.where, table.alias, language))
