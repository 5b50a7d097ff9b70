"""Retention: how long the records behind the stored rows are kept.

Responsible for: the setting of one database and its text form.
Not responsible for: where it is kept (`control`), taking records away (`truncation`).
"""

import re
from typing import NamedTuple

__all__ = ["DEFAULT_RETENTION", "KEEP_ALL", "Retention", "parse_retention"]

_TEXT = re.compile(r"(hours|bytes)=([0-9]{1,15})", re.ASCII)


class Retention(NamedTuple):
    """How much of the log is kept beyond what the stored rows need; both None: all of it."""

    hours: int | None = None
    """Records younger than this."""
    size: int | None = None
    """The newest records, up to so many bytes."""

    def __str__(self) -> str:
        if self.hours is not None:
            return f"hours={self.hours}"
        return "all" if self.size is None else f"bytes={self.size}"


KEEP_ALL = Retention()
DEFAULT_RETENTION = Retention(hours=24)


def parse_retention(text: str) -> Retention:
    """Return the setting of a text: `all`, `hours=T` or `bytes=B`.

    Raises:
        ValueError: It is none; says what there is.
    """
    if text == "all":
        return KEEP_ALL
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is no retention: it is `all`, `hours=T` or `bytes=B`, with a whole number")
    number = int(match[2])
    return Retention(hours=number) if match[1] == "hours" else Retention(size=number)
