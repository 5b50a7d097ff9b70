"""Names: what is an identifier, how names change case, which names a database may have.

Responsible for: the identifier rules, the case conversion that makes canonical names, database names.
Not responsible for: which names of a module are converted (`stdb.schema`).

Source: spec 01 section 11; case conversion as `convert_case` 0.6 with its default boundaries.
"""

import re
import unicodedata
from functools import lru_cache

__all__ = [
    "camel_case",
    "database_name_error",
    "identifier_problem",
    "is_database_name",
    "is_domain",
    "is_identifier",
    "pascal_case",
    "snake_case",
]

_SEPARATORS = "_- "
_DIGITS = frozenset("0123456789")
_DATABASE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_ADDRESS_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{32}", re.ASCII)
_SUBDOMAINS_MAX, _DOMAIN_PART_MAX = 256, 64
_IDENTITY_HEX = re.compile(r"(0x)?[0-9a-fA-F]{64}\Z")
# What a letter is for the boundaries between words.
_OTHER, _LOWER, _UPPER, _DIGIT = range(4)
_BOUNDARIES = frozenset({(_LOWER, _UPPER), (_LOWER, _DIGIT), (_UPPER, _DIGIT), (_DIGIT, _LOWER), (_DIGIT, _UPPER)})


def is_identifier(name: str) -> bool:
    """Tell whether `name` may name a table, column, function or type."""
    return name.isidentifier() and unicodedata.is_normalized("NFC", name)


def identifier_problem(name: str) -> str | None:
    """Return why `name` is no identifier, or None when it is one."""
    if not name:
        return "Empty identifiers are forbidden."
    if not unicodedata.is_normalized("NFC", name):
        return (
            f"Identifier `{name}` is not in Unicode normal form C; write it as `{unicodedata.normalize('NFC', name)}`"
        )
    if not name[0].isidentifier():
        return f"Identifier `{name}` begins with `{name[0]}`; it must begin with a letter or an underscore"
    for character in name:
        if not ("_" + character).isidentifier():
            return f"Identifier `{name}` contains `{character}`; only letters, digits and underscores may follow"
    return None


def is_database_name(name: str) -> bool:
    """Tell whether a database may be called `name`; what reads as an identity is none."""
    return database_name_error(name) is None


def database_name_error(name: str) -> str | None:
    """Return why `name` is no name of a database, in the words of the reference (spec 05 section 1.1), or None.

    In a path, text that reads as an identity is one; the caller looks for that first.
    """
    if _IDENTITY_HEX.match(name):
        return "database names cannot be identities"
    if not name:
        return "database names cannot be empty"
    before = "-"
    for character in name:
        if character not in _DATABASE_LETTERS:
            return "invalid characters in database name"
        if character == before == "-":
            return "invalid hyphen in database name"
        before = character
    return "invalid hyphen in database name" if before == "-" else None


def is_domain(name: str) -> bool:
    """Tell whether `name` can name a database of 0.11: parts of 1 to 64 characters, no blanks, split by slashes.

    What reads as an address is none (spec 03 section 8.1).
    """
    parts = name.split("/")
    if len(parts) > _SUBDOMAINS_MAX + 1 or _ADDRESS_HEX.fullmatch(parts[0]):
        return False
    return all(1 <= len(part) <= _DOMAIN_PART_MAX and not any(map(str.isspace, part)) for part in parts)


@lru_cache(maxsize=4096)
def snake_case(name: str) -> str:
    """Return `name` as snake_case: `oneU8` gives `one_u_8`."""
    return "_".join(word.lower() for word in _words(name))


@lru_cache(maxsize=4096)
def camel_case(name: str) -> str:
    """Return `name` as camelCase: `HTTPError` gives `httpError`."""
    words = _words(name)
    return "".join(words[:1]).lower() + "".join(map(_capitalised, words[1:]))


@lru_cache(maxsize=4096)
def pascal_case(name: str) -> str:
    """Return `name` as PascalCase: `HTTPThing2` gives `HttpThing2`."""
    return "".join(map(_capitalised, _words(name)))


def _capitalised(word: str) -> str:
    first, *rest = _clusters(word)
    return first.upper() + "".join(rest).lower()


def _words(name: str) -> list[str]:
    clusters = _clusters(name)
    kinds = [_kind(cluster) for cluster in clusters]
    words, word = [], ""
    for i, cluster in enumerate(clusters):
        if cluster in _SEPARATORS:
            words.append(word)
            word = ""
            continue
        if i and _is_boundary(kinds, i):
            words.append(word)
            word = ""
        word += cluster
    words.append(word)
    return [word for word in words if word]


def _is_boundary(kinds: list[int], i: int) -> bool:
    """Tell whether a word ends before the cluster at `i`; `HTTPServer` ends one before `Se`."""
    if (kinds[i - 1], kinds[i]) in _BOUNDARIES:
        return True
    return kinds[i - 1 : i + 2] == [_UPPER, _UPPER, _LOWER]


def _kind(cluster: str) -> int:
    if cluster in _DIGITS:
        return _DIGIT
    upper, lower = cluster.upper(), cluster.lower()
    if upper == lower:
        return _OTHER
    if cluster == upper:
        return _UPPER
    return _LOWER if cluster == lower else _OTHER


def _clusters(name: str) -> list[str]:
    """Split into letters, each with the combining marks that follow it."""
    if name.isascii():
        return list(name)
    clusters: list[str] = []
    for character in name:
        if clusters and unicodedata.category(character).startswith("M"):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters
