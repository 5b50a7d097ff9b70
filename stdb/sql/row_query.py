"""Row queries: text of the subscription language to a SELECT, names and types resolved, of whole rows of one table.

Responsible for: what subscriptions, one-off queries and rules have in common before anything is known of indexes.
Not responsible for: syntax (`parser`, `shape`), row-level security (`rules`), which joins may be subscribed to.

Source: spec 06 section 3, rules 1 to 16.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from stdb.errors import QueryError
from stdb.sql.binder import BoundSelect, BoundStar, Caller, bind_select
from stdb.sql.parser import parse
from stdb.sql.shape import subscription_shape
from stdb.sql.shapes import SelectShape

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore

__all__ = ["KEPT_CHARACTERS_MAX", "bind_row_query"]

KEPT_CHARACTERS_MAX = 1_000
"""Longest text whose shape is kept: a shape takes up to 90 bytes for each character of its text."""
_KEPT_MAX = 1_024
"""Shapes that are kept, 90 MB of them at most."""


def bind_row_query(text: str, datastore: "Datastore", caller: Caller) -> BoundSelect:
    """Return the SELECT that a text is; its projection is a BoundStar.

    Raises:
        QueryError: It is none, a name is not there, a type does not fit, or it returns something else than rows.
    """
    read = _kept_shape if len(text) <= KEPT_CHARACTERS_MAX else _shape
    bound = bind_select(read(text), datastore, caller)
    if not isinstance(bound.projection, BoundStar):
        raise QueryError(
            "Column projections are not supported in subscriptions; Subscriptions must return a table type"
        )
    return bound


def _shape(text: str) -> SelectShape:
    return subscription_shape(parse(text))


_kept_shape = lru_cache(maxsize=_KEPT_MAX)(_shape)
"""Many clients send the same text."""
