"""ABI 9.0, function by function, as a guest written as text meets it: results, numbers, traps; by both runtimes."""

from struct import pack

import pytest

from stdb.errors import DecodeError
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.filters import FILTER_DEPTH_MAX, row_filter
from stdb.modules.wasm.imports_9 import NO_BUFFER
from stdb.modules.wasm.memory import NULL_POINTER, OUT_OF_BOUNDS
from stdb.modules.wasm.runtime import GuestTrap
from stdb.sats.types import U8, U32, Element, Product
from tests.wasm_guests import KEY, NOW_US, OUT, ROOM, RUNTIMES
from tests.wasm_guests_9 import Probe, text, thing

NO_SUCH_TABLE, UNIQUE_ALREADY_EXISTS, BUFFER_TOO_SMALL = 1, 3, 4


@pytest.fixture(params=RUNTIMES)
def probe(request: pytest.FixtureRequest) -> Probe:
    """Return the functions of ABI 9 by one of the runtimes."""
    return Probe(RUNTIMES[request.param](engine()))


def test_the_whole_row_is_written_back(probe: Probe) -> None:
    with probe.transaction():
        assert probe.insert("Thing", thing(0, "axe")) == (0, thing(1, "axe"))
        assert probe.insert("Thing", thing(0, "bow")) == (0, thing(2, "bow"))
        assert probe.insert("Thing", thing(9, "cup")) == (0, thing(9, "cup"))
        assert probe.insert("Thing", thing(2, "dog"))[0] == UNIQUE_ALREADY_EXISTS
        assert probe.insert("Thing", thing(2, "bow")) == (0, thing(2, "bow"))
        assert sorted([probe.equal("Thing", 0, pack("<I", n)) for n in (1, 2, 9)]) == sorted(
            [thing(1, "axe"), thing(2, "bow"), thing(9, "cup")]
        )


def test_unknown_tables_have_a_number(probe: Probe) -> None:
    with probe.transaction():
        assert probe.call("_get_table_id", *probe.put(KEY, b"thing"), OUT) == NO_SUCH_TABLE
        where = probe.put(KEY, b"\0\0\0\0")
        assert probe.call("_insert", 99, *where) == NO_SUCH_TABLE
        assert probe.call("_iter_start", 99, OUT) == NO_SUCH_TABLE
        assert probe.call("_iter_start_filtered", 99, *where, OUT) == NO_SUCH_TABLE
        assert probe.call("_iter_by_col_eq", 99, 0, *where, OUT) == NO_SUCH_TABLE
        assert probe.call("_delete_by_col_eq", 99, 0, *where, OUT) == NO_SUCH_TABLE
        assert probe.call("_delete_by_rel", 99, *where, OUT) == NO_SUCH_TABLE
        assert probe.call("_insert", probe.table("st_table"), *where) == NO_SUCH_TABLE
        assert probe.scan("st_table")


def test_rows_are_found_by_a_column_with_an_index_and_without(probe: Probe) -> None:
    with probe.transaction():
        rows = [thing(1, "axe", 0.0), thing(2, "bow", -0.0, 5), thing(3, "axe", float("nan"), 5)]
        for row in rows:
            assert probe.insert("Thing", row)[0] == 0
        assert probe.equal("Thing", 1, text("axe")) == rows[0] + rows[2]
        assert probe.equal("Thing", 1, text("none")) == b""
        assert probe.equal("Thing", 3, pack("<I", 5)) == rows[1] + rows[2]
        assert sorted(probe.equal("Thing", 2, pack("<d", 0.0))) == sorted(rows[0] + rows[1])
        assert probe.equal("Thing", 2, pack("<d", float("nan"))) == rows[2]
        for row in (b"\1" + text("x"), b"\1" + text("y"), b"\2" + text("x")):
            assert probe.insert("Bag", row)[0] == 0
        assert sorted(probe.equal("Bag", 0, b"\1")) == sorted(b"\1" + text("x") + b"\1" + text("y"))


def test_deletes_tell_how_many(probe: Probe) -> None:
    with probe.transaction():
        for number, name in ((1, "axe"), (2, "bow"), (3, "axe"), (4, "cup")):
            probe.insert("Thing", thing(number, name))
        assert probe.delete("Thing", 1, text("axe")) == 2
        assert probe.delete("Thing", 1, text("axe")) == 0
        assert probe.delete("Thing", 0, pack("<I", 2)) == 1
        relation = pack("<I", 2) + thing(4, "cup") + thing(4, "cap")
        assert probe.call("_delete_by_rel", probe.table("Thing"), *probe.put(ROOM, relation), OUT) == 0
        assert probe.number() == 1
        assert probe.scan("Thing") == b""


VALUE, FIELD = b"\0", b"\1"
EQ, NE, LT, LE, GT, GE = range(6)


def compare(operator: int, column: int, value: bytes) -> bytes:
    """Return a comparison with a value."""
    return bytes([0, operator, column]) + VALUE + value


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (compare(EQ, 0, pack("<I", 2)), "2"),
        (compare(NE, 0, pack("<I", 2)), "134"),
        (compare(LT, 0, pack("<I", 2)), "1"),
        (compare(LE, 0, pack("<I", 2)), "12"),
        (compare(GT, 2, pack("<d", 1.5)), "34"),
        (compare(GE, 2, pack("<d", 1.5)), "234"),
        (compare(EQ, 1, text("axe")), "13"),
        (compare(GT, 1, text("bow")), "4"),
        (compare(EQ, 4, b"\1"), "3"),
        (bytes([0, EQ, 0]) + FIELD + b"\3", "14"),
        (bytes([0, LT, 0]) + FIELD + b"\3", "2"),
        (b"\1" + compare(EQ, 1, text("axe")) + b"\0" + compare(GT, 0, pack("<I", 1)), "3"),
        (b"\1" + compare(EQ, 0, pack("<I", 1)) + b"\1" + compare(EQ, 0, pack("<I", 4)), "14"),
        (
            b"\1"
            + (b"\1" + compare(EQ, 0, pack("<I", 1)) + b"\1" + compare(EQ, 0, pack("<I", 3)))
            + b"\0"
            + compare(EQ, 4, b"\1"),
            "3",
        ),
    ],
)
def test_filters(probe: Probe, condition: bytes, wanted: str) -> None:
    rows = {
        "1": thing(1, "axe", 1.0, 1),
        "2": thing(2, "bow", 1.5, 3),
        "3": thing(3, "axe", 2.0, 1, 1),
        "4": thing(4, "cup", float("inf"), 4),
    }
    with probe.transaction():
        for row in rows.values():
            probe.insert("Thing", row)
        assert probe.filtered("Thing", condition) == b"".join(rows[each] for each in wanted)


@pytest.mark.parametrize(
    "condition",
    [
        b"",
        b"\2\0",
        b"\0\6\0\0" + bytes(4),
        b"\0\0\6\0" + bytes(4),
        b"\0\0\0\2" + bytes(4),
        b"\0\0\0\0" + bytes(3),
        b"\0\0\0\0" + bytes(5),
        b"\0\0\0\1\1",
        b"\0\0\0\1\6",
        b"\1" + compare(EQ, 0, bytes(4)) + b"\2" + compare(EQ, 0, bytes(4)),
        b"\1" * 5000,
    ],
)
def test_conditions_that_are_none_trap(probe: Probe, condition: bytes) -> None:
    with probe.transaction(), pytest.raises(GuestTrap, match="the filter of a scan of table `Thing` is none"):
        probe.filtered("Thing", condition)
    assert FILTER_DEPTH_MAX < 5000


def test_filters_short_cuts_and_columns() -> None:
    row_type = Product((Element("a", U8), Element("b", U8)))
    with pytest.raises(DecodeError, match="different types"):
        row_filter(Product((Element("a", U8), Element("b", U32))), b"\0\0\0\1\1")
    assert row_filter(row_type, b"\0\0\0\1\1")(b"\4\4")


def test_chunks_are_whole_rows_and_iterators_stay_until_they_are_dropped(probe: Probe) -> None:
    with probe.transaction():
        rows = [thing(n + 1, "n" * 1000) for n in range(100)]
        for row in rows:
            probe.insert("Thing", row)
        first, second = (probe.call("_iter_start", probe.table("Thing"), OUT) or probe.number() for _ in range(2))
        assert (first, second) == (0, 1)
        probe.put(OUT, pack("<I", 10))
        assert probe.call("_iter_advance", first, ROOM, OUT) == BUFFER_TOO_SMALL
        needed = probe.number()
        assert 32_768 < needed < 32_768 + len(rows[0]) + 1
        probe.put(OUT, pack("<I", needed))
        assert probe.call("_iter_advance", first, ROOM, OUT) == 0
        assert probe.number() == needed
        probe.delete("Thing", 1, text("n" * 1000))
        assert sorted(probe.rows(second)) == sorted(b"".join(rows))
        for _ in range(3):
            probe.put(OUT, pack("<I", 60_000))
            while probe.call("_iter_advance", first, ROOM, OUT) == 0 and probe.number():
                probe.put(OUT, pack("<I", 60_000))
        probe.call("_iter_drop", first)
        for name, args in (("_iter_drop", (first,)), ("_iter_advance", (first, ROOM, OUT)), ("_iter_drop", (77,))):
            with pytest.raises(GuestTrap, match="there is no iterator"):
                probe.call(name, *args)


def test_buffers_are_taken_whole_and_once(probe: Probe) -> None:
    first, second = (probe.call("_buffer_alloc", *probe.put(KEY, each)) for each in (b"", b"abc"))
    assert (first, second) == (0, 1)
    assert (probe.call("_buffer_len", first), probe.call("_buffer_len", second)) == (0, 3)
    for length in (2, 4):
        with pytest.raises(GuestTrap, match="has 3 bytes"):
            probe.call("_buffer_consume", second, ROOM, length)
    probe.call("_buffer_consume", second, ROOM, 3)
    assert probe.guest.memory.read(ROOM, 3) == b"abc"
    for name, args in (("_buffer_len", ()), ("_buffer_consume", (ROOM, 3))):
        for buffer in (second, 77, NO_BUFFER):
            with pytest.raises(GuestTrap, match="there is no buffer"):
                probe.call(name, buffer, *args)


def test_buffers_have_bounds(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stdb.modules.wasm.imports_9.BUFFERS_MAX", 3)
    for _ in range(3):
        probe.call("_buffer_alloc", *probe.put(KEY, b"x"))
    with pytest.raises(GuestTrap, match="more than 3 buffers"):
        probe.call("_buffer_alloc", *probe.put(KEY, b"x"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (thing(1, "axe")[:-1], "too short|left|Expected"),
        (thing(1, "axe") + b"\0", "more than one value"),
        (thing(1, "axe", red=2), "bool"),
        (thing(1, "axe", who=bytes(31)), ""),
        (thing(1, "axe", who=bytes(33)), ""),
        (b"", ""),
    ],
)
def test_rows_that_are_none_trap(probe: Probe, row: bytes, reason: str) -> None:
    with probe.transaction():
        with pytest.raises(GuestTrap, match="a row for table `Thing` cannot be stored.*" + reason):
            probe.insert("Thing", row)
        assert probe.scan("Thing") == b""


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [("Thing", 0, b"\0"), ("Thing", 0, bytes(5)), ("Thing", 3, bytes(3)), ("Thing", 6, b"")],
)
def test_values_that_are_none_trap(probe: Probe, name: str, column: int, value: bytes) -> None:
    with probe.transaction():
        for function in (probe.equal, probe.delete):
            with pytest.raises(GuestTrap, match=r"no value of column|has no column"):
                function(name, column, value)


def test_a_relation_that_lies_traps(probe: Probe) -> None:
    with probe.transaction():
        probe.insert("Thing", thing(1, "axe"))
        for relation in (b"", pack("<I", 1 << 31), pack("<I", 1), pack("<I", 1) + thing(1, "axe") + b"\0"):
            with pytest.raises(GuestTrap, match="rows of table `Thing` do not decode"):
                probe.call("_delete_by_rel", probe.table("Thing"), *probe.put(ROOM, relation), OUT)
        assert probe.scan("Thing") == thing(1, "axe")


def test_a_row_due_too_late_traps(probe: Probe) -> None:
    with probe.transaction():
        assert probe.insert("Tick", pack("<QBQ", 0, 0, NOW_US + 5)) == (0, pack("<QBQ", 1, 0, NOW_US + 5))
        assert probe.insert("Tick", pack("<QBQ", 0, 1, 5))[0] == 0
        for row in (pack("<QBQ", 0, 0, (1 << 64) - 1), pack("<QBQ", 0, 1, 1 << 62)):
            with pytest.raises(GuestTrap, match="Specified delay in scheduling row was too long"):
                probe.insert("Tick", row)


@pytest.mark.parametrize("name", ["_iter_start", "_get_table_id", "_insert", "_delete_by_rel", "_iter_start_filtered"])
def test_tables_need_a_transaction(probe: Probe, name: str) -> None:
    counts = {"_iter_start": 2, "_get_table_id": 3, "_insert": 3}
    with pytest.raises(GuestTrap, match="needs a transaction"):
        probe.call(name, *[KEY] * counts.get(name, 4))


def test_bad_pointers_trap_before_anything_changes(probe: Probe) -> None:
    end = 4 * 65_536
    with probe.transaction():
        number = probe.table("Thing")
        probe.insert("Thing", thing(1, "axe"))
        where = probe.put(KEY, text("axe"))
        cases: list[tuple[str, tuple[int, ...], str]] = [
            ("_insert", (number, 0, 4), NULL_POINTER),
            ("_insert", (number, end - 2, 4), OUT_OF_BOUNDS),
            ("_delete_by_col_eq", (number, 1, *where, end - 2), OUT_OF_BOUNDS),
            ("_delete_by_rel", (number, *probe.put(ROOM, pack("<I", 1) + thing(1, "axe")), 0), NULL_POINTER),
            ("_iter_start", (number, end), OUT_OF_BOUNDS),
            ("_iter_by_col_eq", (number, 1, *where, 0), NULL_POINTER),
            ("_get_table_id", (*probe.put(KEY + 64, b"Thing"), end), OUT_OF_BOUNDS),
            ("_buffer_alloc", (end, 1), OUT_OF_BOUNDS),
            ("_get_table_id", (*probe.put(KEY + 128, b"\xff"), OUT), "not valid UTF-8"),
        ]
        for name, args, reason in cases:
            with pytest.raises(GuestTrap, match=reason):
                probe.call(name, *args)
        assert probe.scan("Thing") == thing(1, "axe")
        assert probe.call("_iter_start", number, OUT) == 0
        assert probe.number() == 0, "no iterator was made in vain"


def test_the_log_and_its_spans(probe: Probe) -> None:
    where = probe.put(KEY, b"hello")
    probe.call("_console_log", 2, 0, 0, 0, 0, 7, *where)
    probe.call("_console_log", 2, 0, 0, 0, 0, 7, 1 << 30, 5)
    span = probe.call("_span_start", *where)
    assert span == 0
    probe.call("_span_end", span)
    assert probe.log.lines == [("Info", "hello"), ("Info", 'Timing span "hello": 0µs')]
    with pytest.raises(GuestTrap, match="there is no span 0"):
        probe.call("_span_end", span)


def test_calls_are_queued_by_name(probe: Probe) -> None:
    queued: list[tuple[str, bytes]] = []
    probe.host.immediate = lambda *call: queued.append(call)
    probe.call("_volatile_nonatomic_schedule_immediate", *probe.put(KEY, b"go"), *probe.put(ROOM, b"\1\2"))
    assert queued == [("go", b"\1\2")]


def test_indexes_are_declared_and_not_made(probe: Probe) -> None:
    with probe.transaction(), pytest.raises(GuestTrap, match="index `mine` cannot be made by a reducer"):
        probe.call("_create_index", *probe.put(KEY + 64, b"mine"), 0, 0, *probe.put(ROOM, b"\1"))
