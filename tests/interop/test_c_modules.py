"""Edges of the host's interface, met by a guest in C in a database, by both runtimes.

Buffers that are too small, handles that are bad or used up, iterators over tables that change, pointers past the
memory, memory that grows under a call, and what of all that stays when the guest traps: nothing.
"""

from collections.abc import Awaitable, Callable
from struct import pack

import pytest
import trio

from stdb.actors.epochs import keep_ticking
from stdb.actors.sink import OutcomeKind
from stdb.modules.wasm.imports_10 import Errno
from stdb.modules.wasm.memory import NULL_POINTER, OUT_OF_BOUNDS
from stdb.modules.wasm.runtime import EXHAUSTED, Limits
from tests.interop.c_guest import (
    DATA,
    FUNCTIONS,
    INDEX,
    ITERATOR,
    KEY,
    LENGTH,
    OUT,
    RESULT,
    ROW,
    TABLE,
    U32,
    U64,
    USED,
    At,
    End,
    Guest,
    Operand,
    Script,
    Sink,
    Source,
    play,
)
from tests.interop.module_clang import build_c_module
from tests.wasm_guests import DEFINITION, RUNTIMES

pytestmark = pytest.mark.slow

FATAL = "The instance encountered a fatal error."
UNBOUNDED = b"\2"
NONE = EXHAUSTED & 0xFFFFFFFF
Play = Callable[[Callable[[Guest], Awaitable[None]]], None]


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Return the name of one of the runtimes."""
    name: str = request.param
    return name


@pytest.fixture
def run(runtime: str) -> Play:
    """Return what runs a check against a fresh database."""
    program = build_c_module("calls", DEFINITION, scheduled_reducer=1)
    return lambda check: play(program, runtime, check)


def u32(number: int) -> bytes:
    """Return a number's BSATN."""
    return pack("<I", number)


def pk(number: int, value: str) -> bytes:
    """Return a row of `pk`."""
    return u32(number) + u32(len(value)) + value.encode()


def pl(number: int) -> bytes:
    """Return a row of `pl`."""
    return pack("<II", number, number)


def filled(count: int, size: int = 1000) -> Script:
    """Return a script that puts rows into `pk`."""
    script = Script()
    for number in range(count):
        script.insert("pk", pk(number, "x" * size))
    return script


def advance(script: Script, capacity: int, tag: str) -> Script:
    """Read an iterator into a buffer of a size; report the code and what became of the length."""
    script.keep(LENGTH, capacity).call("row_iter_bsatn_advance", U32(ITERATOR), At(DATA), At(LENGTH))
    return script.report(tag, LENGTH, 4)


# Buffers and handles


def test_an_iterator_says_how_much_it_needs_and_forgets_nothing(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = filled(100).table("pk").call("datastore_table_scan_bsatn", U32(TABLE), At(ITERATOR))
        for capacity in (0, 3, 32_767):
            advance(script, capacity, "small")
        advance(script, 36_000, "one")
        advance(script, 200_000, "rest")
        advance(script, 200_000, "gone")
        *small, one, rest, gone = await guest.ask(script)
        need = int.from_bytes(small[0].data, "little")
        assert {(each.code, each.data) for each in small} == {(Errno.BUFFER_TOO_SMALL, u32(need))}
        assert 32_768 < need <= 32_768 + 1_008
        assert (one.code, one.data) == (Errno.OK, u32(need))
        assert (rest.code, rest.data) == (NONE, u32(100 * 1_008 - need))
        assert (gone.code, gone.data) == (Errno.NO_SUCH_ITER, u32(200_000))

    run(check)


def test_an_empty_table_is_exhausted_at_once_even_without_a_buffer(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = Script().table("pk").call("datastore_table_scan_bsatn", U32(TABLE), At(ITERATOR))
        advance(script, 0, "empty")
        (empty,) = await guest.ask(script.call("row_iter_bsatn_close", U32(ITERATOR)).unless(Errno.NO_SUCH_ITER))
        assert (empty.code, empty.data) == (NONE, u32(0))

    run(check)


BAD_HANDLES: list[tuple[str, tuple[Operand, ...], int]] = [
    ("row_iter_bsatn_advance", (At(DATA), At(LENGTH)), Errno.NO_SUCH_ITER),
    ("row_iter_bsatn_close", (), Errno.NO_SUCH_ITER),
    ("bytes_source_read", (At(DATA), At(LENGTH)), Errno.NO_SUCH_BYTES),
    ("bytes_source_remaining_length", (At(OUT),), Errno.NO_SUCH_BYTES),
    ("bytes_sink_write", (At(DATA), At(LENGTH)), Errno.NO_SUCH_BYTES),
    ("console_timer_end", (), Errno.NO_SUCH_CONSOLE_TIMER),
    ("datastore_table_row_count", (At(OUT),), Errno.NO_SUCH_TABLE),
    ("datastore_table_scan_bsatn", (At(OUT),), Errno.NO_SUCH_TABLE),
    ("datastore_insert_bsatn", (At(ROW), At(LENGTH)), Errno.NO_SUCH_TABLE),
    ("datastore_update_bsatn", (0, At(ROW), At(LENGTH)), Errno.NO_SUCH_TABLE),
    ("datastore_delete_all_by_eq_bsatn", (At(ROW), 4, At(OUT)), Errno.NO_SUCH_TABLE),
    ("datastore_clear", (At(OUT),), Errno.NO_SUCH_TABLE),
    ("datastore_index_scan_point_bsatn", (At(KEY), 4, At(OUT)), Errno.NO_SUCH_INDEX),
    ("datastore_delete_by_index_scan_point_bsatn", (At(KEY), 4, At(OUT)), Errno.NO_SUCH_INDEX),
    *(
        (name, (At(KEY), 0, 0, At(KEY), 1, At(KEY), 1, At(OUT)), Errno.NO_SUCH_INDEX)
        for name in (
            *("datastore_index_scan_range_bsatn", "datastore_btree_scan_bsatn"),
            *("datastore_delete_by_index_scan_range_bsatn", "datastore_delete_by_btree_scan_bsatn"),
        )
    ),
]


def test_handles_and_ids_of_nothing_have_their_numbers_and_touch_nothing(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = Script().put(OUT, b"unhurt!!").keep(LENGTH, 8).put(KEY, UNBOUNDED)
        for name, operands, _ in BAD_HANDLES:
            for handle in (0, 999, 0x7FFFFFFF, 0xFFFFFFFF):
                script.call(name, handle, *operands).report(name, OUT, 8)
        found = await guest.ask(script)
        wanted = {name: number for name, _, number in BAD_HANDLES}
        assert len(found) == 4 * len(BAD_HANDLES)
        assert [each for each in found if (each.code, each.data) != (wanted[each.tag], b"unhurt!!")] == []

    run(check)


def test_sources_are_read_in_pieces_and_are_gone_at_their_end(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = Script().circumstances(ROW).call("get_jwt", At(ROW + 32), At(OUT)).unless(0)
        for capacity in (0, 4, 100, 100):
            script.call("bytes_source_remaining_length", U32(OUT), At(ROW)).keep(LENGTH, capacity)
            script.call("bytes_source_read", U32(OUT), At(DATA), At(LENGTH)).report("read", DATA, U32(LENGTH))
        got = [(each.code, each.data) for each in await guest.ask(script)]
        assert got[:3] == [(0, b""), (0, b'{"su'), (NONE, b'b":"test"}')]
        assert got[3][0] == Errno.NO_SUCH_BYTES

    run(check)


def test_handles_of_one_call_are_not_those_of_the_next_but_iterators_live_on(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = filled(3, 1).table("pk").call("datastore_table_scan_bsatn", U32(TABLE), At(ITERATOR))
        script.circumstances(ROW).call("get_jwt", At(ROW + 32), At(USED)).keep(OUT, Sink())
        await guest.ask(script)
        later = Script().keep(LENGTH, 8).call("bytes_source_read", U32(USED), At(DATA), At(LENGTH)).report("source")
        later.drain(U32(ITERATOR), DATA).report("iterator", DATA + 4, U32(DATA))
        later.call("row_iter_bsatn_close", U32(ITERATOR)).report("close")
        source, iterator, close = await guest.ask(later)
        assert source.code == Errno.NO_SUCH_BYTES
        assert sorted(iterator.data[at : at + 9] for at in (0, 9, 18)) == [pk(number, "x") for number in range(3)]
        assert close.code == Errno.NO_SUCH_ITER

    run(check)


def test_closed_iterators_are_gone_and_their_numbers_used_again(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = filled(2, 1).table("pk")
        for place in (ITERATOR, USED):
            script.call("datastore_table_scan_bsatn", U32(TABLE), At(place)).report("made", place, 4)
        script.call("row_iter_bsatn_close", U32(ITERATOR)).report("closed")
        script.call("row_iter_bsatn_close", U32(ITERATOR)).report("again")
        advance(script, 100, "advance")
        script.call("datastore_table_scan_bsatn", U32(TABLE), At(OUT)).report("made", OUT, 4)
        script.drain(U32(USED), DATA).report("other", DATA + 4, U32(DATA))
        first, second, closed, again, gone, third, other = await guest.ask(script)
        assert (closed.code, again.code, gone.code) == (0, Errno.NO_SUCH_ITER, Errno.NO_SUCH_ITER)
        assert first.data == third.data != second.data
        assert len(other.data) == 18

    run(check)


def test_iterators_are_what_was_there_when_they_were_made(run: Play) -> None:
    async def check(guest: Guest) -> None:
        await guest.ask(filled(5, 1))
        script = Script().table("pk").call("datastore_table_scan_bsatn", U32(TABLE), At(ITERATOR))
        script.range("pk_id_idx_btree", b"", 0, b"\0" + u32(2), UNBOUNDED).keep(USED, U32(OUT))
        script.insert("pk", pk(77, "later")).point(
            "pk_id_idx_btree", u32(3), "datastore_delete_by_index_scan_point_bsatn"
        )
        script.update("pk", "pk_id_idx_btree", pk(4, "new"))
        script.call("datastore_clear", U32(TABLE), At(OUT)).count(U64(OUT)).report("cleared")
        script.drain(U32(ITERATOR), DATA).report("all", DATA + 4, U32(DATA))
        script.drain(U32(USED), DATA).report("some", DATA + 4, U32(DATA))
        cleared, all_, some = await guest.ask(script)
        assert cleared.counter == 5
        assert sorted(all_.data[at : at + 9] for at in range(0, 45, 9)) == [pk(number, "x") for number in range(5)]
        assert some.data == b"".join(pk(number, "x") for number in (2, 3, 4))
        assert await guest.sql("SELECT * FROM pk") == []

    run(check)


# Pointers and memory

WILD: list[tuple[str, tuple[Operand, ...]]] = [
    ("table_id_from_name", (End(1), 2, At(OUT))),
    ("table_id_from_name", (At(KEY), 2, End(3))),
    ("index_id_from_name", (At(KEY), 0xFFFFFFFF, At(OUT))),
    ("index_id_from_name", (At(KEY + 8), 15, 0xFFFFFFFE)),
    ("datastore_table_row_count", (U32(TABLE), End(7))),
    ("datastore_table_scan_bsatn", (U32(TABLE), End(3))),
    ("datastore_insert_bsatn", (U32(TABLE), At(ROW), End(3))),
    ("datastore_insert_bsatn", (U32(TABLE), End(8), At(LENGTH))),
    ("datastore_update_bsatn", (U32(TABLE), U32(INDEX), End(8), At(LENGTH))),
    ("datastore_delete_all_by_eq_bsatn", (U32(TABLE), At(ROW), 0x80000000, At(OUT))),
    ("datastore_delete_all_by_eq_bsatn", (U32(TABLE), At(ROW), 13, End(2))),
    ("datastore_clear", (U32(TABLE), End(7))),
    ("datastore_index_scan_point_bsatn", (U32(INDEX), End(3), 4, At(OUT))),
    ("datastore_index_scan_point_bsatn", (U32(INDEX), At(ROW + 4), 4, End(3))),
    ("datastore_delete_by_index_scan_point_bsatn", (U32(INDEX), At(ROW + 4), 4, End(3))),
    ("datastore_index_scan_range_bsatn", (U32(INDEX), 0, 0, 0, End(0), 1, At(LENGTH), 1, At(OUT))),
    ("datastore_index_scan_range_bsatn", (U32(INDEX), At(KEY), 0, 65_536, At(OUT), 1, At(OUT), 1, At(OUT))),
    ("datastore_delete_by_index_scan_range_bsatn", (U32(INDEX), At(1), 0, 0, At(USED), 1, At(USED), 1, End(2))),
    ("row_iter_bsatn_advance", (U32(ITERATOR), End(3), At(LENGTH))),
    ("row_iter_bsatn_advance", (U32(ITERATOR), At(DATA), End(3))),
    ("row_iter_bsatn_advance", (U32(ITERATOR), 0, At(LENGTH))),
    ("bytes_sink_write", (Sink(), End(12), At(LENGTH))),
    ("bytes_sink_write", (Sink(), At(DATA), End(1))),
    ("bytes_source_remaining_length", (U32(ROW + 32), End(3))),
    ("bytes_source_read", (U32(ROW + 32), End(4), At(LENGTH))),
    ("bytes_source_read", (U32(ROW + 32), At(DATA), 0)),
    ("get_jwt", (End(15), At(OUT))),
    ("get_jwt", (At(DATA), End(3))),
    ("identity", (End(31),)),
    ("identity", (0,)),
    ("console_timer_start", (End(0), 1)),
    ("volatile_nonatomic_schedule_immediate", (End(2), 3, At(DATA), 0)),
    ("volatile_nonatomic_schedule_immediate", (At(KEY), 2, End(2), 3)),
]
"""Calls with one pointer or length that is wrong, over a table with one row."""


@pytest.mark.parametrize(("name", "operands"), WILD, ids=[f"{i}-{name}" for i, (name, _) in enumerate(WILD)])
def test_what_lies_outside_the_memory_traps_and_rolls_back(run: Play, name: str, operands: tuple[Operand, ...]) -> None:
    async def check(guest: Guest) -> None:
        await guest.ask(Script().insert("pk", pk(1, "a")))
        script = Script().insert("pk", pk(2, "b")).report("rolled back")
        script.index("pk_id_idx_btree").call("datastore_table_scan_bsatn", U32(TABLE), At(ITERATOR))
        script.table("pk").call("datastore_table_scan_bsatn", U32(TABLE), At(ITERATOR))
        script.put(KEY, b"pk      pk_id_idx_btree").put(ROW, u32(1) + pk(1, "a")).put(USED, UNBOUNDED)
        script.circumstances(ROW + 64)
        script.call("get_jwt", At(ROW + 96), At(ROW + 32)).keep(LENGTH, 18)
        outcome = await guest.run(script.call(name, *operands))
        assert (outcome.kind, outcome.text) == (OutcomeKind.FAULT, FATAL)
        report = guest.lines()[-1]["message"]
        assert any(text in report for text in (NULL_POINTER, OUT_OF_BOUNDS, "is no number of columns")), report
        assert await guest.sql("SELECT * FROM pk") == [(1, "a")]
        assert await guest.sql("SELECT * FROM outp") == []
        assert (await guest.ask(Script().rows("pk").report("lives")))[0].counter == 1

    run(check)


def test_every_function_of_the_host_is_called_with_wild_pointers() -> None:
    pointerless = {"row_iter_bsatn_close", "console_timer_end", "console_log"}
    aliases = {"datastore_btree_scan_bsatn", "datastore_delete_by_btree_scan_bsatn"}
    waiting = {name for name in FUNCTIONS if name.startswith("procedure_")}
    assert {*FUNCTIONS} == {name for name, _ in WILD} | pointerless | aliases | waiting


def test_memory_that_grows_within_a_call_is_written_and_read_at_once(run: Play) -> None:
    async def check(guest: Guest) -> None:
        page = 65_536
        script = filled(40)
        for _ in range(3):
            script.grow(2).call("identity", End(2 * page)).call("identity", End(32))
        script.put(KEY, b"pk").call("table_id_from_name", At(KEY), 2, End(4)).table("pk")
        script.call("datastore_table_scan_bsatn", U32(TABLE), End(page)).call(
            "datastore_table_scan_bsatn", U32(TABLE), At(OUT)
        )
        script.grow(1).keep(LENGTH, page).call("row_iter_bsatn_advance", U32(OUT), End(page), At(LENGTH)).report("rows")
        script.grow(0).report("pages")
        rows, pages = await guest.ask(script)
        assert rows.code == NONE
        (again,) = await guest.ask(Script().grow(0).report("pages"))
        assert again.code == pages.code
        outcome = await guest.run(Script().call("identity", End(31)))
        assert outcome.text == FATAL
        (fresh,) = await guest.ask(Script().grow(0).report("pages"))
        assert fresh.code == pages.code - 7, "a trap makes a new instance, with the memory of a new one"

    run(check)


def test_memory_has_a_limit_that_the_guest_is_told(runtime: str) -> None:
    async def check(guest: Guest) -> None:
        script = (
            Script().grow(16).report("some").grow(60_000).report("no").grow(64).report("no").call("identity", End(32))
        )
        some, no, again = await guest.ask(script)
        assert some.code != NONE
        assert no.code == again.code == NONE

    program = build_c_module("calls", DEFINITION, scheduled_reducer=1)
    play(program, runtime, check, Limits(memory_bytes_max=4 << 20))


def test_deep_recursion_is_a_trap_where_the_stack_of_the_guest_ends(run: Play) -> None:
    async def check(guest: Guest) -> None:
        await guest.ask(Script().recurse(100))
        outcome = await guest.run(Script().insert("pl", pl(1)).recurse(1_000_000))
        assert (outcome.kind, outcome.text) == (OutcomeKind.FAULT, FATAL)
        assert await guest.sql("SELECT * FROM pl") == []
        await guest.ask(Script().recurse(100))

    run(check)


def test_a_loop_without_end_is_stopped_and_rolled_back(runtime: str) -> None:
    keep_ticking()

    async def check(guest: Guest) -> None:
        outcome = await guest.run(Script().insert("pl", pl(1)).loop())
        assert outcome.kind == OutcomeKind.OUT_OF_TIME
        assert await guest.sql("SELECT * FROM pl") == []
        await guest.ask(Script().rows("pl").report("lives"))

    play(build_c_module("calls", DEFINITION, scheduled_reducer=1), runtime, check, Limits(call_ticks_max=6))


# Names, the log, who calls


def test_names_that_are_not_there_and_names_that_are(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = Script()
        tables = ("nowhere", "", "PK", "pk ", "pk\0", "st_table", "pk", "pk_id_idx_btree")
        for name in tables:
            script.table(name).report(name)
        indexes = ("nowhere", "", "pk", "st_table_table_id_idx_btree", "pk_id_idx_btree", "two_a_b_idx_btree", "a_b")
        for name in indexes:
            script.index(name).report(name)
        found = await guest.ask(script)
        assert [each.tag for each in found[: len(tables)] if not each.code] == ["st_table", "pk"]
        assert [each.tag for each in found[len(tables) :] if not each.code] == [*indexes[4:6]]
        assert {each.code for each in found[: len(tables)]} == {0, Errno.NO_SUCH_TABLE}
        assert {each.code for each in found[len(tables) :]} == {0, Errno.NO_SUCH_INDEX}
        assert (
            await guest.run(Script().put(KEY, b"\xff").call("table_id_from_name", At(KEY), 1, At(OUT)))
        ).text == FATAL

    run(check)


def test_the_log_has_levels_targets_files_and_lines(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = Script().put(ROW, b"target").put(ROW + 16, b"file.c").put(ROW + 32, b"bad \xff!")
        text = (At(ROW + 32), 6)
        for level in (0, 1, 2, 3, 4, 101, 7, 256 + 1):
            script.call("console_log", level, 0, 0, 0, 0, 0xFFFFFFFF, *text)
        script.call("console_log", 2, At(ROW), 6, At(ROW + 16), 6, 77, *text)
        script.call("console_log", 2, End(3), 6, 0, 0, 0, *text).call("console_log", 2, 0, 0, 0, 0, 0, End(0), 1)
        script.call("console_log", 2, 0, 0, 0, 0, 0, 0, 0)
        await guest.ask(script)
        *levels, full, empty = guest.played()
        names = ["Error", "Warn", "Info", "Debug", "Trace", "Panic", "Debug", "Warn"]
        assert [(each["level"], each["message"]) for each in levels] == [(name, "bad \ufffd!") for name in names]
        assert {each.get("function") for each in levels} == {"run"}
        assert not {"target", "filename", "line_number"} & levels[0].keys()
        assert (full["target"], full["filename"], full["line_number"]) == ("target", "file.c", 77)
        assert (empty["message"], empty["line_number"]) == ("", 0)

    run(check)


def test_timers_tell_how_long_and_live_on(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = Script().put(ROW, b'a "b"')
        await guest.ask(script.call("console_timer_start", At(ROW), 5).keep(OUT, RESULT))
        (ended,) = await guest.ask(Script().call("console_timer_end", U32(OUT)).report("end"))
        assert ended.code == 0
        assert guest.played()[-1]["message"].startswith('Timing span "a \\"b\\"": ')

    run(check)


def test_a_token_is_found_by_the_connection_it_came_with(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = Script()
        for connection in (bytes(16), b"\1" + bytes(15), b"\2" + bytes(15), b"\xff" * 16):
            script.put(ROW, connection).keep(OUT, 99).call("get_jwt", At(ROW), At(OUT)).report("jwt", OUT, 4)
        found = await guest.ask(script)
        assert {each.code for each in found} == {0}
        assert [each.data != bytes(4) for each in found] == [False, True, False, False]

    run(check)


def test_everybody_is_told_who_calls_and_where(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = Script().circumstances(ROW).call("identity", At(ROW + 64)).report("all", ROW, 96)
        (told,) = await guest.ask(script)
        assert told.data[:32] == guest.client.client.identity
        assert told.data[32:48] == guest.client.client.connection_id
        assert int.from_bytes(told.data[48:56], "little") >= 1_700_000_000_000_000
        assert told.data[64:96] == guest.handle.identity

    run(check)


def test_queued_calls_are_made_whatever_becomes_of_the_caller(run: Play) -> None:
    async def check(guest: Guest) -> None:
        queued = Script().circumstances(ROW).report("queued", ROW, 56).as_argument()
        script = Script().put(KEY, b"run").put(DATA, queued).insert("pl", pl(1))
        script.call("volatile_nonatomic_schedule_immediate", At(KEY), 3, At(DATA), len(queued))
        for name in (b"nobody", b"onsc"):
            script.put(KEY, name)
            script.call("volatile_nonatomic_schedule_immediate", At(KEY), len(name), At(DATA), 2)
        outcome = await guest.run(script.text(b"never mind").end(1))
        assert (outcome.kind, outcome.text) == (OutcomeKind.FAILED, "never mind")
        (report,) = await guest.reports()
        assert report.tag == "queued"
        assert report.data[:48] == guest.handle.identity + bytes(16), "the database calls, over no connection"
        assert await guest.sql("SELECT * FROM pl") == []
        errors = [line for line in guest.lines() if line["level"] == "Error"]
        assert any("no such reducer or procedure" in line["message"] for line in errors)
        await guest.run(script.trap())
        assert [each.tag for each in await guest.reports()] == ["queued"]

    run(check)


def test_a_row_of_a_scheduled_table_is_run(run: Play) -> None:
    async def check(guest: Guest) -> None:
        row = pack("<QBq", 0, 1, 0)
        assert (await guest.run(Script().insert("sc", row))).kind == OutcomeKind.COMMITTED
        await trio.sleep(1)
        (report,) = await guest.reports()
        assert (report.tag, report.data) == ("scheduled", pack("<QBq", 1, 1, 0))
        assert await guest.sql("SELECT * FROM sc") == []

    run(check)


# What a procedure may do outside of its transactions


def test_outside_of_a_transaction_nothing_of_the_tables_is_reached(run: Play) -> None:
    async def check(guest: Guest) -> None:
        script = Script().put(KEY, b"pk").keep(LENGTH, 13).call("identity", At(ROW))
        calls: list[tuple[str, tuple[Operand, ...]]] = [
            ("table_id_from_name", (At(KEY), 2, At(OUT))),
            ("index_id_from_name", (At(KEY), 2, At(OUT))),
            ("get_jwt", (At(KEY), At(OUT))),
            *((name, (4_097, *operands)) for name, operands, number in BAD_HANDLES if number == Errno.NO_SUCH_TABLE),
            *((name, (4_097, *operands)) for name, operands, number in BAD_HANDLES if number == Errno.NO_SUCH_INDEX),
        ]
        for place, (name, operands) in enumerate(calls):
            script.call(name, *operands).keep(DATA + 4 + 4 * place, RESULT)
        size = 4 * len(calls)
        got = await guest.procedure(script.keep(DATA, size).say(DATA, 4 + size), "pbytes")
        assert got == u32(size) + u32(Errno.NOT_IN_TRANSACTION) * len(calls)
        assert await guest.procedure(Script().call("bytes_sink_write", Sink(), End(0), At(LENGTH)), "pbytes") != b""
        assert isinstance(await guest.procedure(Script().call("bytes_source_read", Source(), 0, 0)), bytes)

    run(check)
