"""A cache for what is made of types: found by the identity of the arguments first, by their equality second.

Types are compared and hashed part by part, which costs more than most calls of what is cached; but a caller nearly
always hands over the very same objects as before.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

__all__ = ["by_identity"]

_ENTRIES_MAX = 4096
Made = TypeVar("Made")


def by_identity(make: Callable[..., Made]) -> Callable[..., Made]:
    """Return `make` with a cache; its arguments are hashable and given by position."""
    by_equality = lru_cache(maxsize=_ENTRIES_MAX)(make)
    recent: dict[tuple[int, ...], tuple[Made, tuple[Any, ...]]] = {}

    def find(*arguments: Any) -> Made:
        key = tuple(map(id, arguments))
        found = recent.get(key)
        if found is not None:
            return found[0]
        made = by_equality(*arguments)
        if len(recent) >= _ENTRIES_MAX:
            recent.clear()
        recent[key] = made, arguments  # keeps the arguments alive: their ids stay theirs
        return made

    return find
