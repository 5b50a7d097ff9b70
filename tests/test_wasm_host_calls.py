"""Host calls of ABI 10 by both runtimes, held to what the real server answered (`abi_host_calls.json`)."""

import json
from struct import pack
from typing import Any

import pytest

from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.imports_10 import Errno
from stdb.modules.wasm.runtime import EXHAUSTED, GuestTrap
from tests.wasm_guests import IDENTITY, KEY, NOW_US, OUT, ROOM, RUNTIMES, VECTORS, Probe

RECORDED = {case["case"]: case for case in json.loads((VECTORS / "abi_host_calls.json").read_text())["results"]}
UNBOUNDED = b"\2"


@pytest.fixture(params=RUNTIMES)
def probe(request: pytest.FixtureRequest) -> Probe:
    """Return a fresh guest over fresh tables."""
    return Probe(RUNTIMES[request.param](engine()))


def text(value: str) -> bytes:
    """Return the BSATN of a text."""
    return pack("<I", len(value)) + value.encode()


def pk(number: int, value: str) -> bytes:
    """Return a row of `pk`."""
    return pack("<I", number) + text(value)


def recorded(case: str) -> list[int]:
    """Return the error numbers that the real server answered."""
    return [int(report[1].removeprefix("errno=")) for report in RECORDED[case]["reports"]]


def data(case: str, position: int = 0) -> bytes:
    """Return the bytes that the real server answered."""
    return bytes.fromhex(RECORDED[case]["reports"][position][3])


def test_inserting_by_primary_key(probe: Probe) -> None:
    with probe.transaction():
        table = probe.table("pk")
        got = [probe.insert(table, row) for row in (pk(1, "a"), pk(1, "a"), pk(1, "b"))]
        assert [code for code, _ in got] == recorded("insert pk")
        assert got[0][1] == got[1][1] == b""
        assert probe.count(table) == 1


def test_unknown_names_and_ids(probe: Probe) -> None:
    with probe.transaction():
        nowhere = probe.put(KEY, b"nowhere")
        assert probe.call("table_id_from_name", *nowhere, OUT) == Errno.NO_SUCH_TABLE
        assert probe.call("index_id_from_name", *nowhere, OUT) == Errno.NO_SUCH_INDEX
        assert probe.insert(424242, b"") == (Errno.NO_SUCH_TABLE, b"")
        assert probe.call("datastore_table_scan_bsatn", 424242, OUT) == Errno.NO_SUCH_TABLE
        assert probe.call("datastore_table_row_count", 424242, OUT) == Errno.NO_SUCH_TABLE
        assert probe.call("datastore_clear", 424242, OUT) == Errno.NO_SUCH_TABLE
        assert probe.point(424242, b"\0\0\0\0") == Errno.NO_SUCH_INDEX


def test_rows_that_do_not_decode(probe: Probe) -> None:
    with probe.transaction():
        for name, row in (("pk", b"\1"), ("pl", bytes(9)), ("pl", bytes(7)), ("pk", pk(1, "a")[:-1])):
            assert probe.insert(probe.table(name), row)[0] == Errno.BSATN_DECODE_ERROR
            assert probe.count(probe.table(name)) == 0


def test_generated_values_are_written_back_alone(probe: Probe) -> None:
    def au(number: int, value: str) -> bytes:
        return bytes([number]) + text(value)

    with probe.transaction():
        table = probe.table("au")
        rows = (au(0, "a"), au(0, "b"), au(3, "c"), au(0, "d"), au(0, "e"))
        got = [probe.insert(table, row) for row in rows]
    assert [code for code, _ in got] == recorded("auto inc")
    assert [back for _, back in got] == [data("auto inc", i) for i in range(5)]
    with probe.transaction(commit=False):
        probe.insert(table, au(0, "gone"))
    with probe.transaction():
        assert probe.insert(table, au(0, "x"))[1] == data("after rollback")


def test_two_sequences_in_one_row(probe: Probe) -> None:
    with probe.transaction():
        table = probe.table("a2")
        zero = probe.insert(table, pack("<QiH", 0, 0, 7))
        one = probe.insert(table, pack("<QiH", 9, 0, 7))
        again = probe.insert(table, pack("<QiH", 9, 5, 7))
    assert [zero, one, again] == [(0, data("two sequences")), (0, data("two sequences", 1)), (12, b"")]


def test_a_sequence_of_a_byte_goes_round(probe: Probe) -> None:
    with probe.transaction():
        table = probe.table("au")
        assert {probe.insert(table, b"\0" + text("same"))[0] for _ in range(260)} == {0}
        assert probe.count(table) == 256


def test_updates(probe: Probe) -> None:
    with probe.transaction():
        table, index = probe.table("pk"), probe.index("pk_id_idx_btree")
        probe.insert(table, pk(1, "a"))
        got = [
            probe.update(table, index, pk(1, "b"))[0],
            probe.update(table, index, pk(2, "b"))[0],
            probe.update(table, index, pk(1, "b"))[0],
            probe.update(table, probe.index("uq_id_idx_btree"), pk(1, "b"))[0],
            probe.update(table, 424242, pk(1, "b"))[0],
        ]
        assert got == recorded("update")
        assert probe.scan(table) == pk(1, "b")
        two, many = probe.table("two"), probe.index("two_a_b_idx_btree")
        assert [probe.update(two, many, pack("<II", 1, 1) + text("x"))[0]] == recorded("update non unique")
        uq = probe.table("uq")
        for row in (pack("<II", 1, 10), pack("<II", 2, 20)):
            probe.insert(uq, row)
        by_id = probe.index("uq_id_idx_btree")
        got = [probe.update(uq, by_id, pack("<II", 2, other))[0] for other in (10, 21)]
        assert [*got, 0] == recorded("update other unique")
        assert len(data("update other unique", 2)) == 4 + len(probe.scan(uq))  # a count stands before the recorded rows


def fill_two(probe: Probe) -> int:
    table = probe.table("two")
    for a in (1, 2, 3):
        for b in (1, 2, 3):
            assert probe.insert(table, pack("<II", a, b) + text(f"{a}{b}"))[0] == 0
    return probe.index("two_a_b_idx_btree")


def u32(number: int) -> bytes:
    """Return a number's BSATN."""
    return pack("<I", number)


RANGES: dict[str, tuple[bytes, int, bytes, bytes]] = {
    "range eq prefix unb": (u32(2), 1, UNBOUNDED, UNBOUNDED),
    "range prefix 2..": (u32(2), 1, b"\0" + u32(2), UNBOUNDED),
    "range prefix ..<3": (u32(2), 1, UNBOUNDED, b"\1" + u32(3)),
    "range first col = via bounds": (b"", 0, b"\0" + u32(2), b"\0" + u32(2)),
    "range first >1": (b"", 0, b"\1" + u32(1), UNBOUNDED),
    "range start > end": (b"", 0, b"\0" + u32(3), b"\0" + u32(1)),
    "range excl==excl": (b"", 0, b"\1" + u32(2), b"\1" + u32(2)),
    "range pe 2": (u32(2) + u32(2), 2, UNBOUNDED, UNBOUNDED),
    "range pe 3": (u32(2) * 3, 3, UNBOUNDED, UNBOUNDED),
    "range pe 0 + prefix bytes": (u32(9), 0, UNBOUNDED, UNBOUNDED),
    "range short prefix": (b"\1\0", 1, UNBOUNDED, UNBOUNDED),
    "range bad bound tag": (u32(2), 1, b"\7" + u32(2), UNBOUNDED),
    "range short bound": (u32(2), 1, b"\0\1", UNBOUNDED),
    "range trailing bound": (u32(2), 1, b"\0" + u32(2) + b"!", UNBOUNDED),
    "range trailing prefix": (u32(2) + b"!", 1, UNBOUNDED, UNBOUNDED),
}


@pytest.mark.parametrize("case", RANGES)
def test_ranges_yield_what_the_real_server_yields(probe: Probe, case: str) -> None:
    with probe.transaction():
        index = fill_two(probe)
        got = probe.range(index, *RANGES[case])
    assert got == (recorded(case)[0] or data(case))


def test_points(probe: Probe) -> None:
    with probe.transaction():
        index = fill_two(probe)
        assert probe.point(index, u32(2) + u32(1)) == data("point 2 col")
        assert [probe.point(index, u32(2))] == recorded("point short")
        assert [probe.point(index, u32(2) * 2 + b"!")] == recorded("point trailing")
        assert [probe.point(index, b"")] == recorded("point no key bytes")


def test_hash_and_direct_indexes(probe: Probe) -> None:
    with probe.transaction():
        hashed, direct = probe.table("hs"), probe.table("dr")
        for number in (5, 6):
            assert probe.insert(hashed, u32(number) + text("h"))[0] == 0
        for number in (1, 3):
            assert probe.insert(direct, bytes([number]) + u32(number + 4))[0] == 0
        by_hash, by_byte = probe.index("hs_k_idx_hash"), probe.index("dr_k_idx_direct")
        assert probe.point(by_hash, u32(5)) == u32(5) + text("h")
        assert probe.range(by_hash, b"", 0, b"\0" + u32(6), b"\0" + u32(6)) == u32(6) + text("h")
        assert probe.range(by_hash, b"", 0, b"\0" + u32(5), UNBOUNDED) == Errno.WRONG_INDEX_ALGO
        assert probe.point(by_byte, b"\1") == data("direct")
        assert probe.range(by_byte, b"", 0, b"\0\2", UNBOUNDED) == b"\3" + u32(7)


def test_deletes_tell_how_many(probe: Probe) -> None:
    with probe.transaction():
        index, table = fill_two(probe), probe.table("two")
        places = (*probe.put(KEY, u32(2)), 1, *probe.put(KEY + 64, UNBOUNDED), *probe.put(KEY + 64, UNBOUNDED), OUT)
        assert probe.call("datastore_delete_by_index_scan_range_bsatn", index, *places) == 0
        assert probe.number() == 3
        key = probe.put(KEY, u32(1) + u32(1))
        assert probe.call("datastore_delete_by_index_scan_point_bsatn", index, *key, OUT) == 0
        assert probe.number() == 1
        relation = u32(2) + u32(1) * 1 + u32(2) + text("12") + u32(9) + u32(9) + text("99")
        assert probe.call("datastore_delete_all_by_eq_bsatn", table, *probe.put(ROOM, relation), OUT) == 0
        assert probe.number() == 1
        for bad in (relation[:-1], relation + b"!", b"\xff\xff\xff\xff", b"\1"):
            code = probe.call("datastore_delete_all_by_eq_bsatn", table, *probe.put(ROOM, bad), OUT)
            assert code == recorded("deletes")[2]
        assert probe.count(table) == 4
        assert probe.call("datastore_clear", table, OUT) == 0
        assert int.from_bytes(probe.guest.memory.read(OUT, 8), "little") == 4
        assert probe.count(table) == 0


def test_floats_are_compared_by_their_bytes(probe: Probe) -> None:
    with probe.transaction():
        table = probe.table("fv")
        rows = [
            bytes.fromhex(x) + text("a") for x in ("00" * 8, "00" * 7 + "80", "000000000000f87f", "010000000000f87f")
        ]
        assert {probe.insert(table, row)[0] for row in rows} == {0}
        assert probe.scan(table) == data("float rows", 2)[4:]  # a count stands before the recorded rows


def test_event_tables_hold_rows_for_one_transaction(probe: Probe) -> None:
    with probe.transaction():
        table = probe.table("ev")
        probe.insert(table, u32(1) + u32(1))
        assert probe.scan(table) == u32(1) + u32(1)
    with probe.transaction():
        assert probe.count(table) == 0
        unique = probe.table("evu")
        codes = [probe.insert(unique, pk(1, "a"))[0], probe.insert(unique, pk(1, "b"))[0]]
        assert codes == [0, recorded("event unique")[0]]


def test_procedure_functions_are_refused_in_reducers(probe: Probe) -> None:
    with probe.transaction():
        assert [probe.call("procedure_start_mut_tx", OUT)] == recorded("start_tx in reducer")
        assert [probe.call("procedure_commit_mut_tx")] == recorded("commit in reducer")
        assert [probe.call("procedure_abort_mut_tx")] == recorded("abort in reducer")
        with pytest.raises(GuestTrap, match="only available in async instances"):
            probe.call("procedure_sleep_until", 0)


def test_a_row_that_is_due_too_late(probe: Probe) -> None:
    with probe.transaction():
        table = probe.table("sc")
        late = pack("<QBq", 0, 1, NOW_US + 64**6 * 1000)
        assert probe.insert(table, late)[0] == recorded("schedule too long")[0]
        assert probe.insert(table, pack("<QBq", 0, 1, NOW_US + 1))[0] == 0


def test_iterators_are_snapshots_with_numbers(probe: Probe) -> None:
    with probe.transaction():
        table = probe.table("pk")
        assert probe.insert(table, pk(1, "abc"))[0] == 0
        assert probe.call("datastore_table_scan_bsatn", table, OUT) == 0
        iterator = probe.number()
        probe.insert(table, pk(2, "later"))
        probe.put(OUT, u32(3))
        assert probe.call("row_iter_bsatn_advance", iterator, ROOM, OUT) == Errno.BUFFER_TOO_SMALL
        assert probe.number() == len(pk(1, "abc"))
        assert probe.call("row_iter_bsatn_advance", iterator, ROOM, OUT) == EXHAUSTED
        assert probe.guest.memory.read(ROOM, probe.number()) == pk(1, "abc")
        assert probe.call("row_iter_bsatn_advance", iterator, ROOM, OUT) == Errno.NO_SUCH_ITER
        assert probe.call("row_iter_bsatn_close", iterator) == Errno.NO_SUCH_ITER
        assert probe.call("row_iter_bsatn_close", 0) == Errno.NO_SUCH_ITER
        assert probe.call("datastore_table_scan_bsatn", table, OUT) == 0
        assert probe.number() == iterator
        assert probe.call("row_iter_bsatn_close", iterator) == 0


def test_a_large_table_comes_in_whole_chunks(probe: Probe) -> None:
    with probe.transaction():
        table = probe.table("pk")
        rows = [pk(number, "x" * 999) for number in range(200)]
        for row in rows:
            probe.insert(table, row)
        assert sorted(probe.scan(table)) == sorted(b"".join(rows))


def test_bytes_in_and_out(probe: Probe) -> None:
    handles = probe.host.handles
    source, sink = handles.add_source(b"hello"), handles.add_sink()
    assert probe.call("bytes_source_remaining_length", source, OUT) == 0
    assert probe.number() == 5
    probe.put(OUT, u32(2))
    assert probe.call("bytes_source_read", source, ROOM, OUT) == 0
    probe.put(OUT, u32(9))
    assert probe.call("bytes_source_read", source, ROOM, OUT) == EXHAUSTED
    assert probe.guest.memory.read(ROOM, probe.number()) == b"llo"
    assert probe.call("bytes_source_read", source, ROOM, OUT) == Errno.NO_SUCH_BYTES
    assert probe.call("bytes_source_remaining_length", 0, OUT) == Errno.NO_SUCH_BYTES
    assert probe.call("bytes_sink_write", sink, ROOM, OUT) == 0
    assert handles.sinks[sink] == b"llo"
    assert probe.call("bytes_sink_write", 0, ROOM, OUT) == Errno.NO_SUCH_BYTES


def test_identity_timers_and_the_log(probe: Probe) -> None:
    probe.call("identity", ROOM)
    assert probe.guest.memory.read(ROOM, 32) == IDENTITY
    timer = probe.call("console_timer_start", *probe.put(KEY, b'a "name"'))
    assert probe.call("console_timer_end", timer) == 0
    assert [probe.call("console_timer_end", timer)] == recorded("timer")
    probe.call("console_log", 1, 0, 0, 0, 0, 0xFFFFFFFF, *probe.put(KEY, b"bad \xff"))
    probe.call("console_log", 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFF0, 100)  # dropped
    assert probe.log.lines == [("Info", 'Timing span "a \\"name\\"": 0µs'), ("Warn", "bad \ufffd")]


def test_nothing_is_read_outside_a_transaction(probe: Probe) -> None:
    with probe.transaction():
        table, index = probe.table("pk"), probe.index("pk_id_idx_btree")
    code = Errno.NOT_IN_TRANSACTION
    assert probe.call("table_id_from_name", *probe.put(KEY, b"pk"), OUT) == code
    assert probe.call("datastore_table_row_count", table, OUT) == code
    assert probe.insert(table, pk(1, "a")) == (code, b"")
    assert probe.point(index, u32(1)) == code
    assert probe.call("get_jwt", *probe.put(KEY, bytes(16))[:1], OUT) == code


def test_views_note_what_they_read_and_write_nothing(probe: Probe) -> None:
    with probe.transaction():
        index, table = fill_two(probe), probe.table("two")
        probe.insert(probe.table("pk"), pk(1, "a"))
    with probe.view() as reads:
        assert probe.point(index, u32(2) + u32(1)) == data("point 2 col")
        probe.range(index, u32(2), 1, b"\0" + u32(3), b"\0" + u32(3))
        assert reads.tables == set()
        assert reads.keys == {(table, index): {(2, 1), (2, 3)}}
        probe.range(index, u32(2), 1, UNBOUNDED, UNBOUNDED)
        assert reads.tables == {table}
        with pytest.raises(GuestTrap, match="a view only reads"):
            probe.insert(table, pack("<II", 7, 7) + text("w"))
        with pytest.raises(GuestTrap, match="a view only reads"):
            probe.call("datastore_delete_by_index_scan_point_bsatn", index, *probe.put(KEY, u32(2) * 2), OUT)


def test_system_tables_are_read_only(probe: Probe) -> None:
    with probe.transaction():
        table = probe.table("st_table")
        assert probe.count(table) > 20
        assert probe.insert(table, b"")[0] == Errno.NO_SUCH_TABLE
        assert probe.call("datastore_clear", table, OUT) == Errno.NO_SUCH_TABLE


END = 4 * 65536


@pytest.mark.parametrize(
    ("place", "length", "message"),
    [
        (0, 0, "null pointer passed to a spacetime function"),
        (END, 1, "out of bounds pointer passed to a spacetime function"),
        (END - 3, 4, "out of bounds pointer passed to a spacetime function"),
        (0xFFFFFFFF, 0xFFFFFFFF, "out of bounds pointer passed to a spacetime function"),
    ],
)
def test_bad_pointers_trap(probe: Probe, place: int, length: int, message: str) -> None:
    calls: list[tuple[Any, ...]] = [
        ("table_id_from_name", place, length, OUT),
        ("console_timer_start", place, length),
        ("datastore_index_scan_point_bsatn", 4096, place, length, OUT),
    ]
    with probe.transaction():
        for name, *args in calls:
            with pytest.raises(GuestTrap, match=message):
                probe.call(name, *args)


def test_out_parameters_are_checked_before_they_are_written(probe: Probe) -> None:
    with probe.transaction():
        for out in (END - 3, 0xFFFFFFFF):
            with pytest.raises(GuestTrap, match="out of bounds"):
                probe.call("table_id_from_name", *probe.put(KEY, b"pk"), out)
            with pytest.raises(GuestTrap, match="out of bounds"):
                probe.call("datastore_insert_bsatn", probe.table("pk"), ROOM, out)
        with pytest.raises(GuestTrap, match="out of bounds"):
            probe.call("identity", END - 31)


def test_memory_that_grew_is_reached_at_once(probe: Probe) -> None:
    assert probe.guest.call("grow", 1) == 4
    probe.call("identity", END)
    assert probe.guest.memory.read(END, 32) == IDENTITY


def test_names_are_utf8(probe: Probe) -> None:
    with probe.transaction(), pytest.raises(GuestTrap, match="not valid UTF-8"):
        probe.call("table_id_from_name", *probe.put(KEY, b"\xff"), OUT)
