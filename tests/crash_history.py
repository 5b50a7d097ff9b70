"""What clients saw against what a database holds: strict serialisability of appends to lists, through a crash.

An append puts one value at the end of two lists, a read returns one list. The lists of the recovered database give the
order of all appends in them, so that nothing has to be searched for: the history is strictly serialisable exactly if
the graph of these orders has no cycle: the order in each list, of each client's own operations, of what was read, and
of time (an operation that was answered before another was sent comes before it).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from math import inf

__all__ = ["Append", "Read", "check_history", "check_whole"]


@dataclass(eq=False)
class Append:
    """One append: sent, and perhaps answered."""

    value: int
    lists: tuple[int, int]
    sent: float
    answered: float = inf


@dataclass(eq=False)
class Read:
    """One read of a list. `seen` once it is answered."""

    list: int
    sent: float
    answered: float = inf
    seen: tuple[int, ...] = ()


@dataclass(eq=False)
class _Moment:
    """A point in time behind the answers that came before it."""

    at: float
    answers: "list[Append | Read]" = field(default_factory=list)


Node = Append | Read | _Moment


def check_whole(appends: Iterable[Append], lists: Mapping[int, Sequence[int]]) -> set[int]:
    """Return the values that are there: each one once in both of its lists, and in no other."""
    places: dict[int, list[int]] = {}
    for name, values in lists.items():
        for value in values:
            places.setdefault(value, []).append(name)
    expected = {append.value: sorted(append.lists) for append in appends}
    for value, found in places.items():
        assert sorted(found) == expected.get(value), f"{value:#x} is in the lists {found}, not in {expected.get(value)}"
    return set(places)


def check_history(clients: Sequence[tuple[bool, Sequence[Append | Read]]], lists: Mapping[int, Sequence[int]]) -> None:
    """Raise AssertionError unless a strictly serial order explains what clients saw and what is in the lists now.

    `clients`: whether its answers were confirmed (waited for the disk), and what it sent, in order. Everything they
    saw belongs to one life of the server, which ended in a crash.
    """
    everything = [what for _, operations in clients for what in operations]
    present = check_whole([what for what in everything if isinstance(what, Append)], lists)
    _check_acknowledged(clients, present)
    _check_prefixes(clients, present)
    graph: dict[Node, list[Node]] = {}
    by_value = {what.value: what for what in everything if isinstance(what, Append)}
    for values in lists.values():
        for earlier, later in pairwise(values):
            graph.setdefault(by_value[later], []).append(by_value[earlier])
    told: list[Append | Read] = []
    for confirmed, operations in clients:
        kept = [what for what in operations if _counts(what, confirmed, present)]
        told += kept
        for before, after in pairwise(kept):
            graph.setdefault(after, []).append(before)
        for what in kept:
            if isinstance(what, Read):
                _add_read(graph, what, lists[what.list], by_value)
    _add_time(graph, told)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"no serial order explains {error.args[1]}") from error


def _counts(what: Append | Read, confirmed: bool, present: set[int]) -> bool:
    """Tell whether an operation has a place in the order: what was lost with the crash has none."""
    return what.value in present if isinstance(what, Append) else confirmed and what.answered < inf


def _check_acknowledged(clients: Sequence[tuple[bool, Sequence[Append | Read]]], present: set[int]) -> None:
    """What was confirmed is there, and so is what anybody was told of before the last confirmed append was sent."""
    confirmed = [
        what
        for is_confirmed, operations in clients
        if is_confirmed
        for what in operations
        if isinstance(what, Append) and what.answered < inf
    ]
    until = max((what.sent for what in confirmed), default=-inf)
    wanted = {what.value for what in confirmed}
    for _, operations in clients:
        wanted.update(what.value for what in operations if isinstance(what, Append) and what.answered < until)
    assert wanted <= present, f"{len(wanted - present)} acknowledged appends of {len(wanted)} are lost"


def _check_prefixes(clients: Sequence[tuple[bool, Sequence[Append | Read]]], present: set[int]) -> None:
    """Of what one client sent a beginning is there, without gaps."""
    for _, operations in clients:
        are_there = [what.value in present for what in operations if isinstance(what, Append)]
        assert are_there == sorted(are_there, reverse=True), "an append is lost, a later one of its client is there"


def _add_read(graph: dict[Node, list[Node]], read: Read, values: Sequence[int], by_value: Mapping[int, Append]) -> None:
    """What was read was once the whole list; it stands behind its last append and before the next one."""
    count = len(read.seen)
    assert read.seen == tuple(values[:count]), f"list {read.list} was read as {read.seen}, which it never was"
    if count:
        graph.setdefault(read, []).append(by_value[values[count - 1]])
    if count < len(values):
        graph.setdefault(by_value[values[count]], []).append(read)


def _add_time(graph: dict[Node, list[Node]], operations: Iterable[Append | Read]) -> None:
    """What was sent after an answer stands behind what was answered; by way of moments, which follow each other."""
    told = sorted(operations, key=lambda what: what.sent)
    answers = sorted((what for what in told if what.answered < inf), key=lambda what: what.answered)
    moment: _Moment | None = None
    done = 0
    for what in told:
        fresh: list[Append | Read] = []
        while done < len(answers) and answers[done].answered < what.sent:
            fresh.append(answers[done])
            done += 1
        if fresh:
            moment, previous = _Moment(what.sent, fresh), moment
            graph[moment] = [*fresh, *([previous] if previous else [])]
        if moment is not None:
            graph.setdefault(what, []).append(moment)
