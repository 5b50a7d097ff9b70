"""Languages: what the SQL of a client takes beyond that of 1.x and 2.x.

Responsible for: the differences, each as one named fact.
Not responsible for: applying them (`shape`, `binder`, `row_query`).

Source: spec 06 section 4.1 and its "we:".
"""

from typing import NamedTuple

__all__ = ["OLD", "PLAIN", "Language"]


class Language(NamedTuple):
    """One language, seen from that of 1.x and 2.x."""

    infers_tables: bool = False
    """Bare names in joins, where one table alone has such a column; `SELECT *` over a join in full SQL."""
    compares_literals: bool = False
    """Two literals may be compared, as in `1 = 1`."""
    names_variants: bool = False
    """A string stands for the variant of an enum, NULL for none; one that is no identity is that of nobody."""
    lists_columns: bool = False
    """Subscriptions may list columns."""
    hides_tables: bool = False
    """There are no views and no event tables."""
    variables: tuple[str, ...] = ("row_limit",)
    """The system variables that SET and SHOW know."""
    keeps_settings: bool = False
    """SET replaces a value; SHOW, which is the owner's alone, answers with name and value."""
    repeats_columns: bool = False
    """A result may have two columns of one name."""
    inserts_by_name: bool = False
    """INSERT may list its columns in any order, or not at all."""


PLAIN = Language()
OLD = Language(
    infers_tables=True,
    compares_literals=True,
    names_variants=True,
    lists_columns=True,
    hides_tables=True,
    variables=("row_limit", "slow_ad_hoc_query_ms", "slow_subscription_query_ms", "slow_tx_update_ms"),
    keeps_settings=True,
    repeats_columns=True,
    inserts_by_name=True,
)
"""That of 0.11 and older."""
