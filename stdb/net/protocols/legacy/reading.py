"""Reading JSON messages of 0.11 and older as the reference did: strictly in order, errors with line and column.

Responsible for: a cursor over JSON text, products and sums of the few shapes that messages have, the texts of errors.
Not responsible for: which messages there are (`requests`), values of a module's types (`stdb.sats.json`).

A column counts the bytes of its line that were read. Where the text says what stands next is wrong, that counts, too.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from stdb.errors import DecodeError

__all__ = ["Cursor", "Read", "first_key", "product", "variant"]

_BLANK = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"null": "null", "true": "boolean `true`", "false": "boolean `false`"}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_TAG = re.compile(r"[0-9]+", re.ASCII)
_U32_MAX = 0xFFFFFFFF

Read: TypeAlias = "Callable[[Cursor], Any]"


class Cursor:
    """A place in a JSON text."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def error(self, what: str, *, is_next: bool = False) -> DecodeError:
        """Return an error at what was read last, or at what comes next."""
        end = min(len(self.text), self.at + is_next)
        start = self.text.rfind("\n", 0, end) + 1
        line = self.text.count("\n", 0, end) + 1
        return DecodeError(f"{what} at line {line} column {len(self.text[start:end].encode('utf-8', 'replace'))}")

    def next(self, what: str = "a value") -> str:
        """Return the next character that is no blank; `what` is being read."""
        self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches everywhere
        if self.at == len(self.text):
            raise self.error(f"EOF while parsing {what}")
        return self.text[self.at]

    def end(self) -> None:
        """Refuse what is left but blanks."""
        self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches everywhere
        if self.at < len(self.text):
            raise self.error("trailing characters", is_next=True)

    def take(self, symbol: str) -> None:
        """Read a symbol that must come next."""
        if self.next("an object") != symbol:
            raise self.error(f"expected `{symbol}`", is_next=True)
        self.at += 1

    def string(self, expected: str = "a string") -> str:
        """Read a string; `expected` says what of it stands in an error."""
        if self.next() != '"':
            raise self.wrong_type(expected)
        value = self._scan()
        if _LONE_SURROGATE.search(value):
            raise self.error("lone leading surrogate in hex escape")
        return str(value)

    def u32(self) -> int:
        """Read an unsigned integer of 32 bits."""
        match = _NUMBER.match(self.text, self.at) if self.next() in "-0123456789" else None
        if match is None or match[1] or match[2]:
            raise self.wrong_type("u32")
        self.at = match.end()
        value = int(match[0]) if len(match[0]) <= 20 else _U32_MAX + 1
        if not 0 <= value <= _U32_MAX:
            raise self.error(f"invalid value: integer `{match[0]:.40}`, expected u32")
        return value

    def raw(self) -> str:
        """Read any value and return its text."""
        self.next()
        start = self.at
        self._scan()
        return self.text[start : self.at]

    def list(self, read: Read) -> tuple[Any, ...]:
        """Read an array whose elements `read` reads."""
        if self.next() != "[":
            raise self.wrong_type("a vec")
        items: list[Any] = []
        while self._more(items):
            items.append(read(self))
        return tuple(items)

    def hex_bytes(self) -> bytes:
        """Read bytes: a text of hexadecimal digits, or an array of numbers."""
        if self.next() == "[":
            return bytes(self.list(_u8))
        text = self.string("a byte array or hex string")
        try:
            if not text.isascii() or re.search(r"\s", text):
                raise ValueError(text)
            return bytes.fromhex(text)
        except ValueError:
            shown = json.dumps(text, ensure_ascii=False)
            raise self.error(f"invalid value: string {shown}, expected a byte array or hex string") from None

    def wrong_type(self, expected: str) -> DecodeError:
        """Return the error of a value that is of another kind than `expected`; the value is read where it is short."""
        character = self.next()
        if character in "[{":
            return self.error(f"invalid type: {'sequence' if character == '[' else 'map'}, expected {expected}")
        if character == '"':
            return self.error(
                f"invalid type: string {json.dumps(self.string(), ensure_ascii=False)}, expected {expected}"
            )
        for word, shown in _WORDS.items():
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return self.error(f"invalid type: {shown}, expected {expected}")
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            return self.error("expected value", is_next=True)
        self.at = match.end()
        kind = "floating point" if match[1] or match[2] else "integer"
        return self.error(f"invalid type: {kind} `{match[0]:.40}`, expected {expected}")

    def _scan(self) -> Any:
        """Read any value."""
        try:
            value, self.at = _DECODER.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            self.at = error.pos
            raise self.error("expected value", is_next=True) from None
        except RecursionError:
            raise self.error("recursion limit exceeded") from None
        except ValueError:  # NaN, Infinity, an integer of thousands of digits
            raise self.error("expected value", is_next=True) from None
        return value

    def _more(self, before: Sequence[Any]) -> bool:
        """Tell whether another element of an array follows those that were read."""
        if not before:
            self.at += 1
        character = self.next("a list")
        if character == "]":
            self.at += 1
            return False
        if before:
            if character != ",":
                raise self.error("expected `,` or `]`", is_next=True)
            self.at += 1
            if self.next() == "]":
                raise self.error("trailing comma", is_next=True)
        return True


def variant(
    cursor: Cursor, readers: Mapping[str, Read], foreign: Mapping[str, str] | None = None, *, is_sats: bool = True
) -> tuple[str, Any]:
    """Read an object of one member, its name one of those of `readers`; return name and content.

    `foreign` says of other names what is wrong with them. In SATS a variant may be named by its number, too.
    """
    character = cursor.next()
    if character == '"':
        _resolved(cursor, cursor.string(), readers, foreign or {}, is_sats=is_sats)
        raise cursor.error("invalid type: unit variant, expected newtype variant")
    if character != "{":
        raise cursor.error("expected value", is_next=True)
    cursor.at += 1
    if cursor.next() != '"':
        raise cursor.error("expected value", is_next=True)
    name = _resolved(cursor, cursor.string(), readers, foreign or {}, is_sats=is_sats)
    cursor.take(":")
    content = readers[name](cursor)
    if cursor.next("an object") != "}":
        raise cursor.error("expected value")
    cursor.at += 1
    return name, content


def product(
    cursor: Cursor, readers: Mapping[str, Read], optional: Mapping[str, Any] | None = None, *, is_strict: bool = True
) -> list[Any]:
    """Read the members of an object, or the elements of an array, in the order of `readers`.

    `optional` are the values of members that may be missing; other members are refused only where `is_strict`.
    """
    character = cursor.next()
    if character == "[":
        return _elements(cursor, list(readers.values()))
    if character != "{":
        raise cursor.wrong_type(f"a {len(readers)}-element tuple")
    cursor.at += 1
    values = _members(cursor, readers, is_strict)
    for name in readers:
        if name not in values:
            if optional is None or name not in optional:
                raise cursor.error(f"missing field `{name}`")
            values[name] = optional[name]
    return [values[name] for name in readers]


def first_key(text: str) -> str | None:
    """Return the name of the first member of a JSON object; None for any other text."""
    cursor = Cursor(text)
    try:
        if cursor.next() != "{":
            return None
        cursor.at += 1
        return cursor.string()
    except DecodeError:
        return None


def _members(cursor: Cursor, readers: Mapping[str, Read], is_strict: bool) -> dict[str, Any]:
    values: dict[str, Any] = {}
    is_first = True
    while True:
        character = cursor.next("an object")
        if character == "}":
            cursor.at += 1
            return values
        if not is_first:
            cursor.take(",")
            character = cursor.next("an object")
        if character != '"':
            raise cursor.error("trailing comma" if character == "}" else "key must be a string", is_next=True)
        name = cursor.string()
        if name in values:
            raise cursor.error(f"duplicate field `{name}`")
        if is_strict and name not in readers:
            raise cursor.error(f"unknown field `{name:.60}`, expected {_listed(list(readers))}")
        cursor.take(":")
        value = readers[name](cursor) if name in readers else cursor.raw()
        if name in readers:
            values[name] = value
        is_first = False


def _elements(cursor: Cursor, readers: Sequence[Read]) -> list[Any]:
    values: list[Any] = []
    while cursor._more(values):
        if len(values) == len(readers):
            raise cursor.error("trailing characters", is_next=True)
        values.append(readers[len(values)](cursor))
    if len(values) < len(readers):
        raise cursor.error(f"invalid length {len(values)}, expected a {len(readers)}-element tuple")
    return values


def _resolved(
    cursor: Cursor, name: str, readers: Mapping[str, Read], foreign: Mapping[str, str], *, is_sats: bool
) -> str:
    if name in readers:
        return name
    if name in foreign:
        raise DecodeError(foreign[name])
    names = list(readers)
    if not is_sats or _TAG.fullmatch(name) is None:
        expected = _listed(names) if is_sats else f"one of {', '.join(f'`{name}`' for name in names)}"
        raise cursor.error(f"unknown variant `{name:.60}`, expected {expected}")
    if len(name) > 3 or int(name) >= len(names):
        raise cursor.error(f"unknown tag {int(name[:20]):#x} for sum type <unknown>")
    return names[int(name)]


def _listed(names: Sequence[str]) -> str:
    """Name what would have been right, with the reference's punctuation."""
    if len(names) == 2:
        return f"`{names[0]}``or `{names[1]}`"
    return f"one of {''.join(f'`{name}`, ' for name in names[:-1])}`, or {names[-1]}`"


def _u8(cursor: Cursor) -> int:
    value = cursor.u32()
    if value > 255:
        raise cursor.error(f"invalid value: integer `{value}`, expected u8")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
