"""What a mistyped reducer or procedure may have meant: names by edit distance, in the official order."""

from collections.abc import Mapping, Sequence

__all__ = ["suggest"]

NAMES_SHOWN_MAX = 10


def suggest(name: str, names_by_kind: Mapping[str, Sequence[str]]) -> str:
    """Return one similar name, else the existing names of every kind, most similar first; "" when there are none."""
    near = {
        kind: sorted(names, key=lambda each: (_distance(name, each), each)) for kind, names in names_by_kind.items()
    }
    for kind, names in near.items():
        if names and _distance(name, names[0]) <= max(len(name), 3) // 3:
            return f"A {kind} with a similar name exists: `{names[0]}`"
    return "\n\n".join(_listing(kind, names) for kind, names in near.items() if names)


def _listing(kind: str, names: Sequence[str]) -> str:
    lines = [f"Here are some existing {kind}s:", *(f"- {each}" for each in names[:NAMES_SHOWN_MAX])]
    if len(names) > NAMES_SHOWN_MAX:
        lines.append(f"... ({len(names) - NAMES_SHOWN_MAX} {kind}s not shown)")
    return "\n".join(lines)


def _distance(left: str, right: str) -> int:
    """Return the Levenshtein distance: insertions, deletions and replacements from one to the other."""
    row = list(range(len(right) + 1))
    for i, here in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, there in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (here != there))
    return row[-1]
