"""Environment headers: what a publisher changes of the environment variables, as headers of its request.

Responsible for: reading `spacetime-environment` and `spacetime-environment-remove`.
Not responsible for: which values a module takes (`stdb.schema.environment`), publishing (`routes_publish`).

Texts of refusals hold no value: those are secrets.

Source: spec 09 section 5.3.
"""

import json
import re
from collections.abc import Iterable

from stdb.net.errors import HttpError
from stdb.net.http import Headers
from stdb.schema.environment import (
    UNCHANGED,
    VALUE_BYTES_MAX,
    VALUES_MAX,
    EnvironmentChange,
    is_variable_name,
)

__all__ = ["REMOVES", "VALUES", "environment_of"]

VALUES = "spacetime-environment"
"""Header: a list of `KEY=VALUE`."""
REMOVES = "spacetime-environment-remove"
"""Header: a list of keys, or `*` for all."""

_ENTRY = re.compile(
    r"""(?P<name>[^=,"' \t]+)=(?:"""
    r"""(?P<json>"(?:[^"\\]|\\.)*")"""
    r"""|'(?P<literal>[^']*)'"""
    r"""|(?P<bare>[!-~]*?)"""
    r""")(?=[ \t]*(?:,|$))"""
)
_NOT_BARE = re.compile(r"""["',\\]""")
_BETWEEN = re.compile(r"[ \t]*(?:,[ \t]*|$)")
_BLANKS = re.compile(r"[ \t]*")
_RAW = re.compile(r"[ -~\t]*")


def environment_of(headers: Headers) -> EnvironmentChange:
    """Return what a request's headers change.

    Raises:
        HttpError: They are malformed (400); says which entry and why.
    """
    values: dict[str, str] = {}
    for line in headers.all(VALUES):
        for name, value in _entries(line):
            if name in values:
                raise _malformed(VALUES, f"the key {name} comes twice")
            values[name] = value
    removes = _removes(headers.all(REMOVES))
    return EnvironmentChange(values, removes) if values or removes != () else UNCHANGED


def _entries(line: str) -> Iterable[tuple[str, str]]:
    if not _RAW.fullmatch(line):
        raise _malformed(VALUES, "it has bytes that are no visible ASCII; write them as \\u0000 in a quoted value")
    position = 0
    while True:
        position = _skip(line, position)
        if position == len(line):
            return
        found = _ENTRY.match(line, position)
        if found is None:
            raise _malformed(VALUES, f"what begins at byte {position} is no KEY=VALUE")
        name = found["name"]
        if not is_variable_name(name):
            raise _malformed(VALUES, f"what begins at byte {position} has no valid key")
        yield name, _value(name, found)
        position = found.end()


def _skip(line: str, position: int) -> int:
    """Return where the next entry begins, behind blanks and empty entries."""
    while (found := _BETWEEN.match(line, position)) is not None and found.end() > position:
        position = found.end()
    blanks = _BLANKS.match(line, position)
    assert blanks is not None, "it matches nothing, too"
    return blanks.end()


def _value(name: str, found: re.Match[str]) -> str:
    if found["json"] is not None:
        value = _json_value(name, found["json"])
    elif found["literal"] is not None:
        value = found["literal"]
    else:
        value = found["bare"]
        if _NOT_BARE.search(value):
            raise _malformed(VALUES, f"the value of {name} has characters that need quotes")
    if "\t" in found[0]:
        raise _malformed(VALUES, f"the value of {name} has a raw control character")
    if len(value.encode()) > VALUE_BYTES_MAX:
        raise _malformed(VALUES, f"the value of {name} is longer than {VALUE_BYTES_MAX} bytes")
    return value


def _json_value(name: str, text: str) -> str:
    try:
        value: str = json.loads(text)
        value.encode()
    except (ValueError, UnicodeEncodeError):
        raise _malformed(VALUES, f"the value of {name} is no JSON string") from None
    return value


def _removes(lines: list[str]) -> tuple[str, ...] | None:
    """Return the names to remove, None for all."""
    names = [name.strip(" \t") for line in lines for name in line.split(",")]
    names = [name for name in names if name]
    if names == ["*"]:
        return None
    for name in names:
        if not is_variable_name(name):
            raise _malformed(REMOVES, "it holds what is no key; `*` stands alone")
    if len(names) > VALUES_MAX:
        raise _malformed(REMOVES, f"it has more than {VALUES_MAX} keys")
    return tuple(names)


def _malformed(header: str, why: str) -> HttpError:
    return HttpError(400, f"malformed header {header}: {why}")
