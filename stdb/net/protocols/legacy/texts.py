"""Texts: refusals in the words of 0.11.

Responsible for: what calls, subscriptions and statements of clients of 0.11 and older are refused with.
Not responsible for: what is refused (`stdb.sql`, `stdb.actors`), which say it in the words of today.

Source: spec 03 sections 3.5, 7 and 10. A text that 0.11 had no word for stays as it is.
"""

import re
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from stdb.actors.requests import CallReducer
from stdb.actors.sink import OutcomeKind, ReducerOutcome
from stdb.schema.model import Access, ModuleDef
from stdb.sql import READ_ONLY

__all__ = [
    "FATAL",
    "NOT_AUTHORIZED",
    "of_failed_call",
    "of_failed_reducer",
    "of_one_off",
    "of_refused_call",
    "of_sql",
    "of_subscription",
]

FATAL = "The Wasm instance encountered a fatal error."
"""What callers are told of a reducer that broke."""
NOT_AUTHORIZED = "UnauthorizedError"
"""What a refusal over HTTP begins with that is the fault of who asks."""
_FATAL_TODAY = "The instance encountered a fatal error."
_NO_REDUCER = "no such reducer"
_BAD_ARGUMENTS = "invalid arguments for reducer "


def of_failed_call(outcome: ReducerOutcome) -> str:
    """Return the text of a call that ran and failed."""
    return of_failed_reducer(outcome.text) if outcome.kind == OutcomeKind.FAULT else outcome.text


def of_failed_reducer(text: str) -> str:
    """Return the text of a reducer that broke, or failed for a reason of its own."""
    return FATAL if text == _FATAL_TODAY else text


def of_refused_call(call: CallReducer, outcome: ReducerOutcome) -> str:
    """Return the text of a call that was not run: where the arguments are wrong stands in it twice, then why."""
    start = f"{_BAD_ARGUMENTS}{call.reducer}: "
    if not outcome.text.startswith(start):
        return _NO_REDUCER
    where = outcome.text.removeprefix(start)
    chain = f"{outcome.text}: invalid arguments for function {call.reducer}: {where}: "
    return f"{outcome.text}: {outcome.text_chain.removeprefix(chain)}"


# SQL.


class _Refusal(NamedTuple):
    """A text of today taken apart."""

    match: re.Match[str]
    sql: str


_Words: TypeAlias = Callable[[_Refusal], str]
_Rules: TypeAlias = tuple[tuple[re.Pattern[str], _Words], ...]


def of_subscription(text: str, definition: ModuleDef) -> str:
    """Return the text of a subscription that failed."""
    return _in_old_words(text, definition, _SUBSCRIPTION, "VmError: AuthError {0}: AuthError {0}: {0}")


def of_one_off(text: str, definition: ModuleDef) -> str:
    """Return the text of statements of a WebSocket that failed."""
    return _in_old_words(text, definition, _ONE_OFF, 'VmErrorUser: UnauthorizedError: "{0}"\n')


def of_sql(text: str, sql: str, definition: ModuleDef) -> str:
    """Return the text of statements over HTTP that failed."""
    return _in_old_words(f"{text}, executing: `{sql}`", definition, _SQL, 'UnauthorizedError: "{0}"\n')


def _in_old_words(text: str, definition: ModuleDef, rules: _Rules, private: str) -> str:
    """Translate a text; `private` is what is said of a private table, in its own words."""
    found = _EXECUTING.fullmatch(text)
    reason, sql = (found[1], found[2]) if found else (text, "")
    if match := _NO_TABLE.fullmatch(reason):
        table = definition.table(match[1])
        if table is not None and table.access is Access.PRIVATE:
            return private.format(f"Table `{match[1]}` is private")
    for pattern, words in rules:
        if match := pattern.fullmatch(reason):
            return words(_Refusal(match, sql))
    return text


def _executing(words: _Words) -> _Words:
    """Return the words of a text that ends with the statement."""
    return lambda refusal: f"{words(refusal)}, executing: `{refusal.sql}`"


def _twice(kind: str, words: _Words) -> _Words:
    """Return the words of a text that says all of itself again."""
    return lambda refusal: f"{kind}: {words(refusal)}: {words(refusal)}"


def _user_error(kind: str) -> _Words:
    return lambda refusal: f'VmErrorUser: {kind}: "{refusal.match[0]}"\n'


def _tables_of(refusal: _Refusal) -> str:
    names = ", ".join(f'"{name}"' for name in _TABLES.findall(refusal.sql))
    return f"SqlError: Unknown field: `{refusal.match[1]}` not found in the table(s): `[{names}]`"


def _side_effect(refusal: _Refusal) -> str:
    word = refusal.sql.split(None, 1)[0].lower() if refusal.sql.split() else ""
    name = "Config" if word in ("set", "show") else word.capitalize()
    return f"Queries with side effects not allowed: {name}"


def _same(refusal: _Refusal) -> str:
    return refusal.match[0]


_EXECUTING = re.compile(r"(.*?), executing: `(.*)`", re.DOTALL)
_TABLES = re.compile(r'\b(?:FROM|JOIN)\s+"?(\w+)', re.IGNORECASE)
_NO_TABLE = re.compile(r"no such table: `(.*)`\. If the table exists, it may be marked private\.", re.DOTALL)
_EVERYWHERE: _Rules = (
    (_NO_TABLE, _executing(lambda refusal: f"SqlError: Unknown table: `{refusal.match[1]}`")),
    (re.compile(r"`(.*)` is not in scope", re.DOTALL), _executing(_tables_of)),
    (re.compile(r"sql parser error: .*", re.DOTALL), _executing(lambda refusal: f"SqlParserError: {refusal.match[0]}")),
    (
        re.compile(r"Unsupported: .*\bLIMIT\b.*", re.DOTALL | re.IGNORECASE),
        _executing(lambda _: 'SqlError: Unsupported feature: `Unsupported "SELECT" with `query.limit` feature.`'),
    ),
)
_UNSUPPORTED = _twice(
    "SubscriptionError", lambda refusal: f'Unsupported query on subscription: "{refusal.sql}"'
)  # the statement, or what is wrong with it
_SUBSCRIPTION: _Rules = (
    (re.compile(r"Unsupported: Non-SELECT queries"), _twice("SubscriptionError", _side_effect)),
    (re.compile(r"Subscriptions require indexes on join columns"), _UNSUPPORTED),
    (re.compile(r"Column projections are not supported in subscriptions;.*"), _UNSUPPORTED),
    (re.compile(r"SELECT \* is not supported for joins"), _UNSUPPORTED),
    (
        re.compile(r"Multiple SQL statements are not supported"),
        _twice(
            "SubscriptionError",
            lambda _: 'Unsupported query on subscription: "Multiple statements in subscription query"',
        ),
    ),
    (re.compile(r"SubscriptionError: Empty string"), _twice("SubscriptionError", lambda _: "Empty string")),
    *_EVERYWHERE,
)
_ESTIMATED = re.compile(r"Estimated cardinality.*", re.DOTALL)
_ONE_OFF: _Rules = (
    (re.compile(re.escape(READ_ONLY)), _same),
    (_ESTIMATED, _user_error("DbError")),
    *_EVERYWHERE,
)
_SQL: _Rules = (
    (_ESTIMATED, _user_error("DbError")),
    (
        re.compile(r"Caller [0-9a-f]+ is not authorized to run SQL DML statements"),
        lambda _: f'{NOT_AUTHORIZED}: "Only the database owner can perform the requested operation"\n',
    ),
    (re.compile(r"IndexError: .*", re.DOTALL), _user_error("DbError")),
    (
        re.compile(r"`(.*)` does not have a field `(.*)`", re.DOTALL),
        _executing(
            lambda refusal: (
                f'SqlError: Unknown field: `{refusal.match[2]}` not found in the table(s): `["{refusal.match[1]}"]`'
            )
        ),
    ),
    (
        re.compile(r"(.*) is not a valid system variable", re.DOTALL),
        lambda refusal: f'VmErrorUser: DbError: "Invalid system variable {refusal.match[1]}"\n',
    ),
    (
        re.compile(r"Unsupported: .*\bORDER BY\b.*", re.DOTALL | re.IGNORECASE),
        _executing(lambda _: 'SqlError: Unsupported feature: `Unsupported "SELECT" with `query.order_by` feature.`'),
    ),
    *_EVERYWHERE,
    (
        re.compile(r"Unsupported: ((?!SELECT\b).*)", re.DOTALL),
        _executing(lambda refusal: f"SqlError: Unsupported feature: `Syntax {refusal.match[1]}`"),
    ),
    (re.compile(r".*", re.DOTALL), _executing(lambda refusal: f"SqlError: {refusal.match[0]}")),
)
