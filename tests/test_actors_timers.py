"""Timers: the order in which rows come up, and what is kept of those that do not count any more."""

from hypothesis import given
from hypothesis import strategies as st

from stdb.actors.timers import Timer, Timers

ARMED = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 5), st.integers(-(2**63), 2**64) | st.integers(0, 3)), max_size=40
)


def popped(timers: Timers, now_us: int) -> list[Timer]:
    found = []
    while (timer := timers.pop_due(now_us)) is not None:
        found.append(timer)
    return found


@given(ARMED, st.integers(0, 4))
def test_the_last_timer_of_each_row_comes_up_in_due_order(armed: list[tuple[int, int, int]], now_us: int) -> None:
    timers = Timers()
    for i, (table_id, place, due_us) in enumerate(armed):
        timers.arm(table_id, place, b"%d" % i, due_us, 0)
    last = {(table_id, place): (due_us, i) for i, (table_id, place, due_us) in enumerate(armed)}
    expected = sorted((due_us, i, key) for key, (due_us, i) in last.items() if due_us <= now_us)
    assert [(each.due_us, int(each.row), (each.table_id, each.place)) for each in popped(timers, now_us)] == expected
    left = [due_us for due_us, _ in last.values() if due_us > now_us]
    assert timers.next_due_us() == min(left, default=None)


@given(ARMED)
def test_sweeping_changes_nothing_that_counts(armed: list[tuple[int, int, int]]) -> None:
    swept, plain = Timers(), Timers()
    for table_id, place, due_us in armed:
        for timers in (swept, plain):
            timers.arm(table_id, place, b"", due_us, 0)
        swept.sweep(lambda _timer: True)
        assert len(swept) <= 12
    assert popped(swept, 2**65) == popped(plain, 2**65)


def test_only_intervals_move_along_with_the_clock() -> None:
    timers = Timers()
    timers.arm(1, 1, b"once", 10, 0)
    timers.arm(1, 2, b"again", 10, 5)
    timers.shift_intervals(-3)
    assert [(each.row, each.due_us) for each in popped(timers, 100)] == [(b"again", 7), (b"once", 10)]
