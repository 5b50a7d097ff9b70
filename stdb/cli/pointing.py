"""Pointing: the place in a statement that an error is about, with a caret below it."""

import re

__all__ = ["pointed"]

WIDTH_MAX = 100
_POSITION = re.compile(r"at Line: (\d+), Column:? (\d+)")
_QUOTED = re.compile(r"`([^`]+)`")


def pointed(text: str, error: str) -> str | None:
    """Return the line of a statement that an error names, by position or by a word, with carets; None if it does not.

    A word counts when the statement holds it once.
    """
    found = _by_position(text, error) or _by_word(text, error)
    if found is None:
        return None
    start, size = found
    line_start = text.rfind("\n", 0, start) + 1
    line = text[line_start:].split("\n", 1)[0].replace("\t", " ")
    return _marked(line, start - line_start, min(size, len(line) - (start - line_start)))


def _by_position(text: str, error: str) -> tuple[int, int] | None:
    found = _POSITION.search(error)
    if found is None:
        return None
    number, column = int(found[1]), int(found[2])
    lines = text.split("\n")
    if not (0 < number <= len(lines) and 0 < column <= len(lines[number - 1]) + 1):
        return None
    word = re.match(r"\w+", lines[number - 1][column - 1 :])
    return sum(len(line) + 1 for line in lines[: number - 1]) + column - 1, len(word[0]) if word else 1


def _by_word(text: str, error: str) -> tuple[int, int] | None:
    for quoted in _QUOTED.findall(error):
        places = [each.start() for each in re.finditer(rf"(?<!\w){re.escape(quoted)}(?!\w)", text)]
        if len(places) == 1:
            return places[0], len(quoted)
    return None


def _marked(line: str, column: int, size: int) -> str:
    """Return a line and carets below a part of it; of a long line only what is around."""
    cut = max(0, column - WIDTH_MAX // 2) if len(line) > WIDTH_MAX else 0
    shown = line[cut : cut + WIDTH_MAX]
    return f"    {shown}\n    {' ' * (column - cut)}{'^' * max(1, size)}"
