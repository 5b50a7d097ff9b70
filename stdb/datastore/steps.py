"""Steps: work that can be paused, whoever drives it.

Responsible for: what such work looks like, running it without a pause.
Not responsible for: when to pause (`stdb.actors`).
"""

from collections.abc import Generator
from typing import TypeAlias, TypeVar

__all__ = ["Steps", "finish"]

Result = TypeVar("Result")
Steps: TypeAlias = Generator[None, None, Result]
"""Work that may be paused at every `yield` and returns its result; the tables must not change meanwhile."""


def finish(steps: Steps[Result]) -> Result:
    """Run steps to their end without a pause; return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
