"""A place in a list of tokens: looking, taking, expecting, reprinting.

Responsible for: the moves every part of the parser makes, syntax errors with their places, the depth guard.
Not responsible for: any grammar (`expressions`, `queries`, `parser`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar, cast

from stdb.errors import QueryError
from stdb.sql.lexer import END, OTHER_STRING, QUOTED, STRING, SYMBOL, WORD, Token
from stdb.sql.syntax import Ident, TableName

__all__ = ["DEPTH_MAX", "PRINTED_AS_KEYWORDS", "Cursor", "reprint", "syntax_error", "too_deep", "words"]

DEPTH_MAX = 50
"""Nested statements, queries and expressions that the reference allows (47 parentheses around a comparison)."""


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


PRINTED_AS_KEYWORDS = words(
    """ADD ALL ALTER ANALYZE AND AS ASC ASSERT ATTACH BEGIN BETWEEN BIGINT BOOL BOOLEAN BY CASCADE CASE CAST CHAR
    CHECK CLOSE COLUMN COMMENT COMMIT CONFLICT CONSTRAINT COPY CREATE CROSS CURSOR DATABASE DATE DEALLOCATE DECLARE
    DEFAULT DELETE DESC DESCRIBE DISCARD DISTINCT DO DOUBLE DROP ELSE END EXCEPT EXECUTE EXISTS EXPLAIN EXTENSION
    FETCH FIRST FLOAT FOLLOWING FOR FOREIGN FROM FULL FUNCTION GRANT GROUP HAVING IF IN INDEX INNER INSERT INT INTEGER
    INTERSECT INTO IS JOIN KEY KILL LAST LEFT LIKE LIMIT MATCHED MERGE NATURAL NOT NOTHING NULL NULLS OF OFFSET ON
    ONLY OR ORDER OUTER OVER PARTITION PRAGMA PRECEDING PREPARE PRIMARY PROCEDURE RANGE REFERENCES RELEASE RENAME
    REPLACE RESTRICT RETURNING REVOKE RIGHT ROLE ROLLBACK ROW ROWS SAVEPOINT SCHEMA SELECT SEQUENCE SESSION SET SHARE
    SHOW SMALLINT START TABLE TEMPORARY TEXT THEN TIMESTAMP TO TRANSACTION TRUNCATE TYPE UNBOUNDED UNION UNIQUE UPDATE
    USE USING VALUES VARCHAR VIEW WHEN WHERE WINDOW WITH WORK"""
)
"""Words that a reprinted statement shows in capitals."""

_T = TypeVar("_T")


def syntax_error(expected: str, found: Token) -> QueryError:
    """Return the reference's text for a token that does not fit."""
    return QueryError(f"sql parser error: Expected {expected}, found: {found.where()}")


class _TooDeepError(QueryError):
    """Nested too deeply: no other reading of the text is tried."""


def too_deep() -> QueryError:
    """Return the refusal of what is nested too deeply."""
    return _TooDeepError("sql parser error: recursion limit exceeded")


class Cursor:
    """Where a parser stands in its tokens."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self._depth = 0
        self._attempts: dict[tuple[int, Callable[[], object]], tuple[object, int]] = {}

    # Looking.

    def peek(self, ahead: int = 0) -> Token:
        """Return a token without taking it; the END for ever after the last."""
        try:
            return self.tokens[self.at + ahead]
        except IndexError:
            return self.tokens[-1]

    def is_keyword(self, *words: str) -> bool:
        """Tell whether these words come next."""
        return self.peek().keyword == words[0] and (
            len(words) == 1 or all(self.peek(ahead).keyword == words[ahead] for ahead in range(1, len(words)))
        )

    def is_any_keyword(self, *words: str) -> bool:
        """Tell whether one of these words comes next."""
        return self.peek().keyword in words

    def is_symbol(self, symbol: str, ahead: int = 0) -> bool:
        """Tell whether this symbol comes next."""
        token = self.peek(ahead)
        return token.kind == SYMBOL and token.text == symbol

    # Taking.

    def take(self) -> Token:
        """Take the next token."""
        token = self.peek()
        self.at += 1
        return token

    def take_keyword(self, *words: str) -> bool:
        """Take these words if they come next; tell whether they did."""
        if not self.is_keyword(*words):
            return False
        self.at += len(words)
        return True

    def take_any_keyword(self, *words: str) -> str:
        """Take one of these words if it comes next; return it in capitals, else the empty string."""
        word = self.peek().keyword
        if word not in words:
            return ""
        self.at += 1
        return word

    def take_symbol(self, symbol: str) -> bool:
        """Take this symbol if it comes next; tell whether it did."""
        if not self.is_symbol(symbol):
            return False
        self.at += 1
        return True

    def expect_keyword(self, *words: str) -> None:
        """Take these words or raise."""
        for word in words:
            if not self.take_keyword(word):
                raise syntax_error(word, self.peek())

    def expect_symbol(self, symbol: str) -> None:
        """Take this symbol or raise."""
        if not self.take_symbol(symbol):
            raise syntax_error(symbol, self.peek())

    def commas(self, parse: Callable[[], _T]) -> list[_T]:
        """Return what `parse` finds between commas, at least one."""
        found = [parse()]
        while self.take_symbol(","):
            found.append(parse())
        return found

    def attempt(self, parse: Callable[[], _T]) -> _T | None:
        """Return what `parse` finds; None, and nothing taken, when it does not fit.

        What was found at a place is kept: of two readings of nested parentheses each would try both again.
        """
        place = (self.at, parse)
        if place in self._attempts:
            found, self.at = self._attempts[place]
            return cast("_T | None", found)
        try:
            found = parse()
        except _TooDeepError:
            raise
        except QueryError:
            found, self.at = None, place[0]
        self._attempts[place] = found, self.at
        return found

    # Names.

    def identifier(self) -> Ident:
        """Take a name: any word, or one in double or single quotes."""
        token = self.take()
        if token.kind == WORD:
            return Ident(token.text)
        if token.kind == QUOTED:
            return Ident(token.text, '"')
        if token.kind == STRING:
            return Ident(token.text, "'")
        raise syntax_error("identifier", token)

    def table_name(self) -> TableName:
        """Take a possibly dotted name."""
        parts = [self.identifier()]
        while self.take_symbol("."):
            parts.append(self.identifier())
        return TableName(tuple(parts))

    # Reprinting what is refused anyway.

    def rest_of_statement(self) -> str:
        """Take everything up to `;` or the end and print it."""
        start = self.at
        while self.peek().kind != END and not self.is_symbol(";"):
            self.at += 1
        return reprint(self.tokens[start : self.at])

    def parenthesised(self) -> str:
        """Take a pair of parentheses with all between; return it printed."""
        start = self.at
        self.expect_symbol("(")
        end = self._closings.get(start)
        if end is None:
            raise syntax_error(")", self.tokens[-1])
        self.at = end + 1
        return reprint(self.tokens[start : self.at])

    @cached_property
    def _closings(self) -> dict[int, int]:
        """Where every opening parenthesis is closed; looked up, because each may be asked for at every level."""
        found: dict[int, int] = {}
        open_: list[int] = []
        for place, token in enumerate(self.tokens):
            if token.kind == SYMBOL and token.text == "(":
                open_.append(place)
            elif token.kind == SYMBOL and token.text == ")" and open_:
                found[open_.pop()] = place
        return found

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Count one level of nesting for the length of a block.

        Raises:
            QueryError: Too deep.
        """
        if self._depth >= DEPTH_MAX:
            raise too_deep()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


def reprint(tokens: list[Token]) -> str:
    """Return tokens as one line: keywords in capitals, one blank between words, none inside parentheses."""
    parts: list[str] = []
    for place, token in enumerate(tokens):
        if place and _is_spaced(tokens[place - 1], token):
            parts.append(" ")
        parts.append(token.keyword if token.keyword in PRINTED_AS_KEYWORDS else token.shown)
    return "".join(parts)


def _is_spaced(before: Token, token: Token) -> bool:
    if token.kind == SYMBOL and token.text in (")", ",", ".", ";"):
        return False
    if before.kind == SYMBOL and before.text in ("(", "."):
        return False
    if token.kind == SYMBOL and token.text == "(":
        return token.after_blank
    return token.after_blank or before.kind != OTHER_STRING
