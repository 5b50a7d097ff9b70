"""SATS-JSON: strict parsing of text, lenient reading of values, the emitted forms.

Responsible for: `parse` (text to document), `decode` and `decoder` (document to value), `encode` and `encoder` (value
to text), the spelling of numbers.
Not responsible for: HTTP bodies, which are not SATS (`stdb.net`); types as JSON (`meta`).

Source: spec 01 section 7. Forms: `typed` (objects, sums by variant name), `row` (objects, sums by tag; inside an array
positional), `positional` (arrays, sums by tag), and `compiled`, which is `typed` with `[]` for unit.

A document is what `parse` returns: dict, list, str, int, float, bool, None. An integer literal too long for any integer
type is a float; `-0` is the float MINUS_ZERO, which 128-bit integers read as 0 and smaller ones refuse.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from stdb.errors import DecodeError, EncodeError
from stdb.sats import bsatn
from stdb.sats.caches import by_identity
from stdb.sats.json_numbers import MINUS_ZERO, float_text
from stdb.sats.json_reader import Mismatch, Reader, reader
from stdb.sats.json_writer import FORMS, Writer
from stdb.sats.profiles import MODERN, Profile
from stdb.sats.types import AlgebraicType, Typespace

__all__ = ["FORMS", "MINUS_ZERO", "NESTING_MAX", "decode", "decoder", "encode", "encoder", "float_text", "parse"]

NESTING_MAX = 127
"""Arrays and objects in one another."""
_INTEGER_CHARACTERS_MAX = 40
"""The longest 128-bit integer, with its sign."""
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_WRITE_FAILURES = (TypeError, ValueError, LookupError, AttributeError)


def parse(text: str | bytes) -> Any:
    """Return the document that `text` holds, one value and white space.

    Raises:
        DecodeError: It is not JSON, nested more than NESTING_MAX deep, has a key twice, a number too large for a
            double, NaN or Infinity, a lone surrogate, or bytes that are not UTF-8.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(f"invalid utf8 at byte {error.start} of the JSON text") from None
    elif not text.isascii() and _LONE_SURROGATE.search(text):
        raise DecodeError("the JSON text holds a lone surrogate")
    if text.count("[") + text.count("{") > NESTING_MAX:
        _check_nesting(text)
    try:
        document = _PARSER.decode(text)
    except json.JSONDecodeError as error:
        raise DecodeError(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    if _SURROGATE_ESCAPE.search(text):
        _check_surrogates(document)
    return document


def decode(
    type_: AlgebraicType,
    document: Any,
    *,
    typespace: Typespace = Typespace.EMPTY,
    profile: Profile = MODERN,
    root: str = "$",
) -> Any:
    """Return the plain value of `type_` that `document` stands for; spec 01 section 7.3 says what is accepted.

    Raises:
        DecodeError: It stands for none; the message begins with a path such as `$.args[2]`, whose start is `root`.
    """
    return read(_reader(type_, typespace, profile), document, root)


def decoder(
    type_: AlgebraicType, *, typespace: Typespace = Typespace.EMPTY, profile: Profile = MODERN, root: str = "$"
) -> Callable[[Any], Any]:
    """Return the function from a document to its plain value; it raises as `decode` does."""
    value_of = _reader(type_, typespace, profile)
    return lambda document: read(value_of, document, root)


def encode(
    type_: AlgebraicType,
    value: Any,
    form: str,
    *,
    typespace: Typespace = Typespace.EMPTY,
    profile: Profile = MODERN,
) -> str:
    """Return the JSON text of a plain value, without white space.

    Raises:
        EncodeError: The value is none of the type's, or the form needs a name that an element does not have.
    """
    return _writer(type_, form, typespace, profile)(value)


def encoder(
    type_: AlgebraicType, form: str, *, typespace: Typespace = Typespace.EMPTY, profile: Profile = MODERN
) -> Callable[[Any], str]:
    """Return the function from a plain value to its JSON text; it raises as `encode` does."""
    return _writer(type_, form, typespace, profile)


def read(value_of: Reader, document: Any, root: str) -> Any:
    """Return what a reader makes of a document, its mismatch as a DecodeError."""
    try:
        return value_of(document)
    except Mismatch as error:
        raise DecodeError(f"{root}{''.join(reversed(error.steps))}: {error.text}") from None


@by_identity
def _reader(type_: AlgebraicType, typespace: Typespace, profile: Profile) -> Reader:
    return reader(type_, typespace, profile)


@by_identity
def _writer(type_: AlgebraicType, form: str, typespace: Typespace, profile: Profile) -> Callable[[Any], str]:
    write = Writer(typespace, profile, form).compile(type_)

    def explaining(value: Any) -> str:
        try:
            return write(value)
        except EncodeError:
            raise
        except RecursionError:
            raise EncodeError("$: nested too deep to be written as JSON") from None
        except _WRITE_FAILURES:
            bsatn.codec(type_, typespace, profile).encode(value)
            raise

    return explaining


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise DecodeError(f"duplicate field `{name:.60}`")
            seen.add(name)
    return document


def _integer(text: str) -> int | float:
    if len(text) > _INTEGER_CHARACTERS_MAX:
        return _float(text)
    return MINUS_ZERO if text == "-0" else int(text)


def _float(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise DecodeError(f"number out of range: {text:.60}")
    return number


def _constant(name: str) -> Any:
    raise DecodeError(f"expected value, found {name}, which is not JSON")


_PARSER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=_constant, strict=True
)


def _check_nesting(text: str) -> None:
    depth = 0
    for found in _BRACKETS.finditer(text):
        bracket = found[0]
        if bracket in "[{":
            depth += 1
            if depth > NESTING_MAX:
                raise DecodeError(f"recursion limit exceeded: more than {NESTING_MAX} nested arrays and objects")
        elif bracket in "]}":
            depth -= 1


def _check_surrogates(document: Any) -> None:
    stack = [document]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if _LONE_SURROGATE.search(item):
                raise DecodeError("lone surrogate in a string: \\ud800 to \\udfff come in pairs")
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
