"""Row queries: text of the subscription language to a SELECT, names and types resolved, of whole rows of one table.

Responsible for: what subscriptions, one-off queries and rules have in common before anything is known of indexes.
Not responsible for: syntax (`parser`, `shape`), row-level security (`rules`), which joins may be subscribed to.

Source: spec 06 section 3, rules 1 to 16.
"""

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from stdb.errors import QueryError
from stdb.sql.binder import BoundColumns, BoundSelect, BoundStar, Caller, bind_select
from stdb.sql.language import Language
from stdb.sql.parser import parse
from stdb.sql.shape import subscription_shape
from stdb.sql.shapes import SelectShape

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore

__all__ = ["KEPT_CHARACTERS_MAX", "bind_picking_query", "bind_row_query"]

KEPT_CHARACTERS_MAX = 1_000
"""Longest text whose shape is kept: a shape takes up to 90 bytes for each character of its text."""
_KEPT_MAX = 1_024
"""Shapes that are kept, 90 MB of them at most."""


def bind_row_query(text: str, datastore: "Datastore", caller: Caller) -> BoundSelect:
    """Return the SELECT that a text is; its projection is a BoundStar.

    Raises:
        QueryError: It is none, a name is not there, a type does not fit, or it returns something else than rows.
    """
    bound, columns = bind_picking_query(text, datastore, caller)
    assert columns is None, "only other languages list columns"
    return bound


def bind_picking_query(text: str, datastore: "Datastore", caller: Caller) -> tuple[BoundSelect, tuple[int, ...] | None]:
    """Return the same, and the places of the columns that the caller's language lets it list; None for whole rows.

    Raises:
        QueryError: As `bind_row_query`; or it lists columns of more than one table.
    """
    read = _kept_shape if len(text) <= KEPT_CHARACTERS_MAX else _shape
    bound = bind_select(read(text, caller.language), datastore, caller)
    if isinstance(bound.projection, BoundColumns) and caller.language.lists_columns:
        columns = [position for position, _ in bound.projection.columns]
        if len({position.relation for position in columns}) == 1:
            star = replace(bound, projection=BoundStar(columns[0].relation))
            return star, tuple(position.column for position in columns)
    if not isinstance(bound.projection, BoundStar):
        raise QueryError(
            "Column projections are not supported in subscriptions; Subscriptions must return a table type"
        )
    return bound, None


def _shape(text: str, language: Language) -> SelectShape:
    return subscription_shape(parse(text), language)


_kept_shape = lru_cache(maxsize=_KEPT_MAX)(_shape)
"""Many clients send the same text."""
