"""Texts: refusals in the words of 0.11.

Responsible for: what calls, subscriptions and statements of clients of 0.11 and older are refused with.
Not responsible for: what is refused (`stdb.sql`, `stdb.actors`), which say it in the words of today.

Source: spec 03 sections 3.5, 7 and 10. A text that 0.11 had no word for stays as it is.
"""

import re
from collections.abc import Callable

from stdb.actors.requests import CallReducer
from stdb.actors.sink import OutcomeKind, ReducerOutcome
from stdb.schema.model import Access, ModuleDef

__all__ = ["FATAL", "of_failed_call", "of_one_off", "of_refused_call", "of_sql", "of_subscription"]

FATAL = "The Wasm instance encountered a fatal error."
"""What callers are told of a reducer that broke."""
_FATAL_TODAY = "The instance encountered a fatal error."
_NO_REDUCER = "no such reducer"
_BAD_ARGUMENTS = "invalid arguments for reducer "


def of_failed_call(outcome: ReducerOutcome) -> str:
    """Return the text of a call that ran and failed."""
    return FATAL if outcome.kind == OutcomeKind.FAULT and outcome.text == _FATAL_TODAY else outcome.text


def of_refused_call(call: CallReducer, outcome: ReducerOutcome) -> str:
    """Return the text of a call that was not run: where the arguments are wrong stands in it twice, then why."""
    start = f"{_BAD_ARGUMENTS}{call.reducer}: "
    if not outcome.text.startswith(start):
        return _NO_REDUCER
    where = outcome.text.removeprefix(start)
    reason = outcome.text_chain.removeprefix(
        f"{outcome.text}: invalid arguments for function {call.reducer}: {where}: "
    )
    return f"{outcome.text}: {reason}"


# SQL.

_EXECUTING = re.compile(r"(.*), executing: `(.*)`", re.DOTALL)


def of_subscription(text: str, definition: ModuleDef) -> str:
    """Return the text of a subscription that failed."""
    return _in_old_words(text, definition, _SUBSCRIPTION_ONLY, "VmError: AuthError {0}: AuthError {0}: {0}")


def of_one_off(text: str, definition: ModuleDef) -> str:
    """Return the text of statements of a WebSocket that failed."""
    return _in_old_words(text, definition, _ONE_OFF_ONLY, 'VmErrorUser: UnauthorizedError: "{0}"\n')


def of_sql(text: str, definition: ModuleDef) -> str:
    """Return the text of statements over HTTP that failed."""
    return _in_old_words(text, definition, (), 'UnauthorizedError: "{0}"\n')


def _in_old_words(
    text: str, definition: ModuleDef, rules: "tuple[tuple[re.Pattern[str], str], ...]", private: str
) -> str:
    found = _EXECUTING.fullmatch(text)
    reason, sql = (found[1], found[2]) if found else (text, None)
    for pattern, old in rules:
        if match := pattern.fullmatch(reason):
            return match.expand(old).replace("<sql>", sql or "")
    if match := _NO_TABLE.fullmatch(reason):
        table = definition.table(match[1])
        if table is not None and table.access is Access.PRIVATE:
            return private.format(f"Table `{match[1]}` is private")
    executing = "" if sql is None else f", executing: `{sql}`"
    for pattern, make in _EVERYWHERE:
        if match := pattern.fullmatch(reason):
            return make(match) + executing
    return text


_NO_TABLE = re.compile(r"no such table: `(.*)`\. If the table exists, it may be marked private\.", re.DOTALL)
_EVERYWHERE: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_NO_TABLE, lambda match: f"SqlError: Unknown table: `{match[1]}`"),
    (re.compile(r"sql parser error: .*", re.DOTALL), lambda match: f"SqlParserError: {match[0]}"),
)
_SIDE_EFFECTS = "Queries with side effects not allowed: "
_UNSUPPORTED = "Unsupported query on subscription: "
_SUBSCRIPTION_ONLY: tuple[tuple[re.Pattern[str], str], ...] = ()
_ONE_OFF_ONLY: tuple[tuple[re.Pattern[str], str], ...] = ()
