"""Tokens of SQL text, as PostgreSQL's dialect is cut by the reference's tokenizer.

Responsible for: words, quoted names, numbers, strings of every kind, placeholders, operators, comments, places.
Not responsible for: what a word means (`parser`), whether a literal is allowed (`shape`).

Source: spec 06 section 2. Names are never folded; a sign is never part of a number.
"""

import re
from typing import NamedTuple

from stdb.errors import QueryError

__all__ = ["EOF", "Token", "is_plain_name", "tokenize"]

WORD, QUOTED, NUMBER, STRING, HEX, OTHER_STRING, PLACEHOLDER, SYMBOL, END = range(9)
"""Kinds of token. OTHER_STRING: literals that read well and are never allowed (`E'…'`, `N'…'`, `$$…$$`)."""


class Token(NamedTuple):
    """One token. `text` is its meaning (quotes undone), `shown` how errors show it; `line`, `column` count from 1."""

    kind: int
    text: str
    shown: str
    line: int
    column: int
    after_blank: bool = True
    """Whether white space or a comment stands before it."""
    keyword: str = ""
    """An unquoted word in capitals, else empty."""

    def where(self) -> str:
        """Return the token as a syntax error names it."""
        return self.shown if self.kind == END else f"{self.shown} at Line: {self.line}, Column {self.column}"


EOF = Token(END, "", "EOF", 0, 0)

_BLANK = re.compile(r"(?:[ \t\n\r]|--[^\n]*(?:\n|\Z))+")
_WORD = re.compile(r"[^\W\d]\w*", re.UNICODE)
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEX = re.compile(r"0x[0-9A-Fa-f]*")
_QUOTED = {'"': re.compile(r'"((?:[^"]|"")*)"'), "'": re.compile(r"'((?:[^']|'')*)'")}
_ESCAPED = re.compile(r"'((?:[^'\\]|\\.|'')*)'", re.DOTALL)
_DOLLAR = re.compile(r"\$(\w*)(\$?)")
_COLON = re.compile(r":[ \t\n\r]*")
_COMMENT_PART = re.compile(r"/\*|\*/")
_OPERATORS = (
    r"<=>|->>|#>>|!~~\*|<->|!~\*|!~~|~~\*|\|\|/|\?\|"
    r"|<=|<>|<<|>=|>>|!=|==|=>|\|\||\|/|&&|::|:=|->|#>|@>|<@|#-|@@|@\?|\?&|!!|!~|~\*|~~|\^@"
)
_SYMBOLS = re.compile(_OPERATORS + r"|.", re.DOTALL)
_PLAIN = re.compile(
    r"(?:([ \t\n\r]+)"
    r"|((?![xXnNeE]')[A-Za-z_][A-Za-z0-9_$]*+(?![^\x00-\x7F]))"
    r"|([0-9]++(?![.xeEL]))"
    rf"|((?!--|/\*|\.[0-9]|[?:](?!:)|:=)(?:{_OPERATORS}|[-+*/%=<>!~^&|#@(){{}}\[\],;.])))"
)
"""The most frequent tokens, each by one group: blanks, words, numbers, symbols. Where it fits it says what the rest
of this module would say, only sooner."""
_BLANKS, _PLAIN_WORD, _PLAIN_NUMBER = 1, 2, 3


def tokenize(text: str) -> list[Token]:
    """Return the tokens of `text`, an END last.

    Raises:
        QueryError: A quote or comment without its end.
    """
    return _Tokenizer(text).run()


def is_plain_name(name: str) -> bool:
    """Tell whether a name is a word as it stands, without quotes."""
    return bool(name) and (name[0] == "_" or name[0].isalpha()) and all(map(_continues_word, name))


def _continues_word(character: str) -> bool:
    return character in "_$0123456789" or character.isalpha()


class _Tokenizer:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.line_start = 0
        self.tokens: list[Token] = []

    def run(self) -> list[Token]:
        size = len(self.text)
        while True:
            is_after_blank = self._plain()
            before = self.at
            self._skip_blanks()
            if self.at >= size:
                break
            self._take(is_after_blank or self.at > before)
        self.tokens.append(EOF._replace(line=self.line, column=self.at - self.line_start + 1))
        return self.tokens

    def _plain(self) -> bool:
        """Take tokens as long as they are plain; tell whether blanks come last."""
        text, at, line, line_start = self.text, self.at, self.line, self.line_start
        match, add, new = _PLAIN.match, self.tokens.append, tuple.__new__
        is_after_blank = not at
        while found := match(text, at):
            shown, kind, end = found.group(), found.lastindex, found.end()
            if kind == _BLANKS:
                is_after_blank = True
                if "\n" in shown:
                    line += shown.count("\n")
                    line_start = at + shown.rindex("\n") + 1
                at = end
                continue
            column = at - line_start + 1
            if kind == _PLAIN_WORD:
                add(new(Token, (WORD, shown, shown, line, column, is_after_blank, shown.upper())))
            else:
                token_kind = NUMBER if kind == _PLAIN_NUMBER else SYMBOL
                add(new(Token, (token_kind, shown, shown, line, column, is_after_blank, "")))
            is_after_blank, at = False, end
        self.at, self.line, self.line_start = at, line, line_start
        return is_after_blank

    def _skip_blanks(self) -> None:
        text = self.text
        while True:
            blank = _BLANK.match(text, self.at)
            if blank:
                self._advance(blank.end())
            elif text.startswith("/*", self.at):
                self._advance(self._comment_end())
            else:
                return

    def _comment_end(self) -> int:
        depth = 0
        for part in _COMMENT_PART.finditer(self.text, self.at):
            depth += 1 if part.group() == "/*" else -1
            if not depth:
                return part.end()
        raise self._error("Unexpected EOF while in a multi-line comment")

    def _advance(self, end: int) -> None:
        newlines = self.text.count("\n", self.at, end)
        if newlines:
            self.line += newlines
            self.line_start = self.text.rindex("\n", self.at, end) + 1
        self.at = end

    def _error(self, what: str) -> QueryError:
        return QueryError(f"sql parser error: {what} at Line: {self.line}, Column {self.at - self.line_start + 1}")

    def _add(self, kind: int, text: str, end: int, after_blank: bool, shown: str | None = None) -> None:
        column = self.at - self.line_start + 1
        shown = self.text[self.at : end] if shown is None else shown
        keyword = text.upper() if kind == WORD else ""
        self.tokens.append(Token(kind, text, shown, self.line, column, after_blank, keyword))
        self._advance(end)

    def _take(self, blank: bool) -> None:
        text, at = self.text, self.at
        first = text[at]
        if first in "'\"":
            self._take_quoted(first, blank)
        elif first.isdigit() or (first == "." and text[at + 1 : at + 2].isdigit()):
            self._take_number(blank)
        elif (first == ":" and self._take_placeholder(blank)) or (first == "$" and self._take_dollar(blank)):
            return
        elif first == "?" and not text.startswith(("?|", "?&"), at):
            self._add(PLACEHOLDER, "?", at + 1, blank)
        elif first == "_" or first.isalpha():
            self._take_word(blank)
        else:
            symbol = _SYMBOLS.match(text, at)
            assert symbol is not None
            self._add(SYMBOL, symbol.group(), symbol.end(), blank)

    def _take_quoted(self, quote: str, blank: bool) -> None:
        found = _QUOTED[quote].match(self.text, self.at)
        if found is None:
            what = "Unterminated string literal" if quote == "'" else "Expected close delimiter '\"' before EOF."
            raise self._error(what)
        kind = STRING if quote == "'" else QUOTED
        self._add(kind, found.group(1).replace(quote * 2, quote), found.end(), blank)

    def _take_number(self, blank: bool) -> None:
        found = _HEX.match(self.text, self.at)
        if found:
            self._add(HEX, found.group()[2:], found.end(), blank, f"X'{found.group()[2:]}'")
            return
        found = _NUMBER.match(self.text, self.at)
        if found is None:  # a digit of another script
            self._add(SYMBOL, self.text[self.at], self.at + 1, blank)
            return
        is_long = self.text.startswith("L", found.end())
        self._add(NUMBER, found.group(), found.end() + is_long, blank)

    def _take_placeholder(self, blank: bool) -> bool:
        """Take `:name`, also with blanks between or the name quoted, as the reference does."""
        if self.text.startswith(("::", ":="), self.at):
            return False
        after = _COLON.match(self.text, self.at)
        assert after is not None
        name = _WORD.match(self.text, after.end()) or _QUOTED['"'].match(self.text, after.end())
        if name is None:
            return False
        shown = ":" + name.group().strip('"')
        self._add(PLACEHOLDER, shown, name.end(), blank, shown)
        return True

    def _take_dollar(self, blank: bool) -> bool:
        """Take a string in dollars, or a placeholder; a dollar alone is a symbol."""
        found = _DOLLAR.match(self.text, self.at)
        assert found is not None
        if not found.group(2):
            if found.group(1):
                self._add(PLACEHOLDER, found.group(), found.end(), blank)
            return bool(found.group(1))
        end = self.text.find(found.group(), found.end())
        if end < 0:
            raise self._error("Unterminated dollar-quoted string")
        self._add(OTHER_STRING, self.text[found.end() : end], end + len(found.group()), blank)
        return True

    def _take_word(self, blank: bool) -> None:
        text, at = self.text, self.at
        if text.startswith("'", at + 1) and text[at] in "xXnNeE":
            self._take_prefixed(text[at].upper(), blank)
            return
        end = at + 1
        while end < len(text) and _continues_word(text[end]):
            end += 1
        self._add(WORD, text[at:end], end, blank)

    def _take_prefixed(self, prefix: str, blank: bool) -> None:
        pattern = _ESCAPED if prefix == "E" else _QUOTED["'"]
        found = pattern.match(self.text, self.at + 1)
        if found is None:
            raise self._error("Unterminated encoded string literal" if prefix == "E" else "Unterminated string literal")
        kind = HEX if prefix == "X" else OTHER_STRING
        shown = f"{prefix}'{found.group(1)}'"
        self._add(kind, found.group(1).replace("''", "'"), found.end(), blank, shown)
