"""Ignore: which files of a directory are part of a program.

Responsible for: `.gitignore` patterns, names that never belong to a program, virtual environments.
Not responsible for: reading directories (the command line), archives (`archive`).

Patterns are git's: `#` comments, `!` takes back, a trailing `/` means directories, a `/` elsewhere ties the pattern to
the directory of its file, `*`, `?`, `[…]` stay within a name, `**` crosses names. As in git, nothing below an ignored
directory can be taken back.

Source: spec 08, "Publishing and loading"; gitignore(5).
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["is_never_packed", "select"]

ENVIRONMENT_MARKER = "pyvenv.cfg"


def is_never_packed(name: str) -> bool:
    """Tell whether a file or directory of this name is always left out; who walks a directory need not enter it."""
    return name.startswith(".") or name == "__pycache__"


class _Rule(NamedTuple):
    """One line of a `.gitignore`."""

    directory: str
    pattern: re.Pattern[str]
    takes_back: bool
    directories_only: bool


def select(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of a directory that belong to the program, by `/`-separated path; sorted.

    Only chosen files and every `.gitignore` are read from `files`, which may therefore read lazily.
    """
    rules = [
        rule
        for path in sorted(files, key=lambda path: path.count("/"))
        if path.rpartition("/")[2] == ".gitignore"
        for rule in _rules(path.rpartition("/")[0], files[path].decode("utf-8", "replace"))
    ]
    environments = {path.rpartition("/")[0] for path in files if path.rpartition("/")[2] == ENVIRONMENT_MARKER}
    excluded: dict[str, bool] = {}
    return {path: files[path] for path in sorted(files) if not _is_excluded(path, False, rules, environments, excluded)}


def _is_excluded(
    path: str, is_directory: bool, rules: list[_Rule], environments: set[str], known: dict[str, bool]
) -> bool:
    """Tell whether a path is left out, itself or by a directory above it."""
    if (answer := known.get(path)) is not None:
        return answer
    parent, _, name = path.rpartition("/")
    answer = (
        (parent != "" and _is_excluded(parent, True, rules, environments, known))
        or is_never_packed(name)
        or (is_directory and path in environments)
        or _is_ignored(path, is_directory, rules)
    )
    if is_directory:
        known[path] = answer
    return answer


def _is_ignored(path: str, is_directory: bool, rules: Iterable[_Rule]) -> bool:
    """Tell what the last rule that matches says."""
    ignored = False
    for rule in rules:
        inside = path if not rule.directory else path[len(rule.directory) + 1 :]
        if rule.directory and not path.startswith(rule.directory + "/"):
            continue
        if (is_directory or not rule.directories_only) and rule.pattern.fullmatch(inside):
            ignored = not rule.takes_back
    return ignored


def _rules(directory: str, text: str) -> Iterable[_Rule]:
    for line in text.splitlines():
        pattern = re.sub(r"(?<!\\)\s+$", "", line)
        if not pattern or pattern.startswith("#"):
            continue
        takes_back = pattern.startswith("!")
        pattern = pattern[takes_back:]
        directories_only = pattern.endswith("/")
        pattern = pattern.rstrip("/")
        if not pattern:
            continue
        anchored = "/" in pattern
        expression = _expression(pattern.lstrip("/"))
        try:
            compiled = re.compile(expression if anchored else f"(?:.*/)?{expression}", re.DOTALL)
        except re.error:  # a bracket that git would not understand either
            continue
        yield _Rule(directory, compiled, takes_back, directories_only)


def _expression(pattern: str) -> str:
    """Return the regular expression of a pattern."""
    found, i = "", 0
    while i < len(pattern):
        if pattern.startswith("**/", i) and (i == 0 or pattern[i - 1] == "/"):
            found, i = found + "(?:.*/)?", i + 3
        elif pattern[i:] == "**" and (i == 0 or pattern[i - 1] == "/"):
            found, i = found + ".+", i + 2
        elif pattern[i] == "*":
            found, i = found + "[^/]*", i + 1
        elif pattern[i] == "?":
            found, i = found + "[^/]", i + 1
        elif pattern[i] == "[" and (end := pattern.find("]", i + 2)) > 0:
            found, i = found + f"(?!/)[{_members(pattern[i + 1 : end])}]", end + 1
        else:
            i += pattern[i] == "\\" and i + 1 < len(pattern)
            found, i = found + re.escape(pattern[i]), i + 1
    return found


def _members(inside: str) -> str:
    """Return what stands in brackets as a regular expression has it: each end of a range escaped."""
    start = "^" if inside[0] in "!^" else ""
    inside, found, i = inside[len(start) :], start, 0
    while i < len(inside):
        is_range = inside[i + 1 : i + 2] == "-" and i + 2 < len(inside)
        found += re.escape(inside[i]) + (f"-{re.escape(inside[i + 2])}" if is_range else "")
        i += 3 if is_range else 1
    return found
