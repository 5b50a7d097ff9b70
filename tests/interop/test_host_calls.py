"""The 75 host-call cases of the real server (`abi_host_calls.json`), run by a guest in C, in their order.

Each case is a script of one call. Compared are how the call ended, error numbers, counters, bytes written back and rows
read. A counter in the guest's memory survives from call to call, so what is compared says too when an instance was
replaced. Where this server answers something else on purpose, `OURS` says what and why.
"""

import ast
import json
from collections.abc import Callable
from struct import pack
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import MockClock

from stdb.actors.sink import OutcomeKind
from stdb.errors import QueryError
from tests.interop.c_guest import (
    DATA,
    LENGTH,
    OUT,
    RESULT,
    ROW,
    TABLE,
    U32,
    U64,
    USED,
    At,
    Guest,
    Report,
    Script,
    open_guest,
)
from tests.interop.module_clang import build_c_module
from tests.wasm_guests import DEFINITION, RUNTIMES, VECTORS

pytestmark = pytest.mark.slow

CASES: list[dict[str, Any]] = json.loads((VECTORS / "abi_host_calls.json").read_text())["results"]
NAMES = [case["case"] for case in CASES]
FATAL = "The instance encountered a fatal error."
UNBOUNDED = b"\2"
POINT_DELETE = "datastore_delete_by_index_scan_point_bsatn"
RANGE_DELETE = "datastore_delete_by_index_scan_range_bsatn"


class Answer(NamedTuple):
    """How a case ended, and what it reported."""

    result: Any
    reports: list[Report]


def u32(number: int) -> bytes:
    """Return a number's BSATN."""
    return pack("<I", number)


def text(value: str) -> bytes:
    """Return the BSATN of a text."""
    return u32(len(value)) + value.encode()


def pk(number: int, value: str) -> bytes:
    """Return a row of `pk`, `au`'s and `two`'s are alike."""
    return u32(number) + text(value)


def two(a: int, b: int) -> bytes:
    """Return a row of `two`."""
    return u32(a) + u32(b) + text(f"{a}{b}")


# The scripts of the views, by index.

VIEWS = (
    Script().scan("pk").put(ROW, b"\0").say(ROW, 1).say(DATA, U32(USED)),
    Script().text(b"\1" + text("SELECT * FROM pk WHERE id = 1")),
    Script().scan("pk").say(DATA, U32(USED)).end(0),
    Script().text(b"view says no").end(1),
    Script().text(b"\0" + u32(1) + b"\1"),
    Script().insert("pk", pk(77, "w")).scan("pk").put(ROW, b"\0").say(ROW, 1).say(DATA, U32(USED)),
    Script().end(3),
    Script().text(b"\1" + text("SELECT * FROM pk WHERE id > 1")),
    Script().text(b"\0" + u32(2) + pk(1, "a") + pk(2, "b")),
)

# The scripts of the cases, by name.

SCRIPTS: dict[str, Script] = {}


def in_order(script: Script, *steps: tuple[str, Callable[[Script], object]]) -> Script:
    """Add steps and report what each returned."""
    for tag, step in steps:
        step(script)
        script.report(tag)
    return script


SCRIPTS["point no key bytes"] = Script().point("pk_id_idx_btree", b"").report("r")
SCRIPTS["insert pk"] = in_order(
    Script().insert("pk", pk(1, "a")).report("write-back", ROW, U32(LENGTH)),
    ("same again", lambda s: s.insert("pk", pk(1, "a"))),
    ("pk dup", lambda s: s.insert("pk", pk(1, "b"))),
)
SCRIPTS["unknown names"] = in_order(
    Script(),
    ("no table", lambda s: s.table("nowhere")),
    ("count", lambda s: s.call("datastore_table_row_count", 424242, At(OUT))),
    ("scan", lambda s: s.call("datastore_table_scan_bsatn", 424242, At(OUT))),
    ("point", lambda s: s.index("nowhere")),
    ("clear", lambda s: s.call("datastore_clear", 424242, At(OUT))),
    ("deleq", lambda s: s.call("datastore_delete_all_by_eq_bsatn", 424242, At(ROW), 4, At(OUT))),
)
for name, table, row in (
    ("insert undecodable", "pk", b"\1"),
    ("insert trailing fixed", "pl", bytes(9)),
    ("insert short fixed", "pl", bytes(7)),
):
    SCRIPTS[name] = Script().insert(table, row).unless(0).report(name)
SCRIPTS["insert trailing var"] = Script().insert("pk", pk(5, "x") + b"!").report("trailing var")
SCRIPTS["auto inc"] = Script()
for tag, number, value in (("auto wb", 0, "a"), ("auto wb2", 0, "b"), ("explicit", 3, "c"), ("collides 3", 0, "d")):
    SCRIPTS["auto inc"].insert("au", bytes([number]) + text(value))
    SCRIPTS["auto inc"].report(tag, ROW, 0 if tag == "collides 3" else U32(LENGTH))
SCRIPTS["auto inc"].insert("au", b"\0" + text("e")).report("next", ROW, U32(LENGTH))
SCRIPTS["two sequences"] = (
    Script()
    .insert("a2", pack("<QiH", 0, 0, 7))
    .report("two seqs", ROW, U32(LENGTH))
    .insert("a2", pack("<QiH", 9, 0, 7))
    .report("one zero", ROW, U32(LENGTH))
    .insert("a2", pack("<QiH", 9, 5, 7))
    .report("dup")
)
SCRIPTS["auto then rollback"] = Script().insert("au", b"\0" + text("gone")).text(b"rolled back").end(1)
SCRIPTS["after rollback"] = Script().insert("au", b"\0" + text("x")).report("after rollback", ROW, U32(LENGTH))
SCRIPTS["u8 overflow"] = Script()
for number in range(260):
    SCRIPTS["u8 overflow"].insert("au", b"\0" + text("same")).count(number)
SCRIPTS["u8 overflow"].report("260 inserts: last errno").rows("au").report("count")
SCRIPTS["update"] = in_order(
    Script(),
    ("update", lambda s: s.update("pk", "pk_id_idx_btree", pk(1, "b"))),
    ("no row", lambda s: s.update("pk", "pk_id_idx_btree", pk(2, "b"))),
    ("same", lambda s: s.update("pk", "pk_id_idx_btree", pk(1, "b"))),
    ("foreign index", lambda s: s.update("pk", "uq_id_idx_btree", pk(1, "b"))),
    ("no index", lambda s: s.index("nowhere")),
)
SCRIPTS["update non unique"] = Script().update("two", "two_a_b_idx_btree", two(1, 1)).report("non-unique index")
SCRIPTS["update zero autoinc"] = (
    Script().insert("a2", pack("<QiH", 2, 8, 8)).update("a2", "a2_id_idx_btree", pack("<QiH", 0, 8, 9))
).report("update zero pk")
SCRIPTS["update other unique"] = (
    Script()
    .insert("uq", u32(1) + u32(10))
    .insert("uq", u32(2) + u32(20))
    .update("uq", "uq_id_idx_btree", u32(2) + u32(10))
    .report("violates other")
    .update("uq", "uq_id_idx_btree", u32(2) + u32(21))
    .report("ok")
    .scan("uq")
    .report("rows", DATA, U32(USED))
)
SCRIPTS["fill two"] = Script()
for a in (1, 2, 3):
    for b in (1, 2, 3):
        SCRIPTS["fill two"].insert("two", two(a, b))
SCRIPTS["fill two"].report("ins")

RANGES: dict[str, tuple[bytes, int, bytes, bytes]] = {
    "eq prefix unb": (u32(2), 1, UNBOUNDED, UNBOUNDED),
    "prefix 2..": (u32(2), 1, b"\0" + u32(2), UNBOUNDED),
    "prefix ..<3": (u32(2), 1, UNBOUNDED, b"\1" + u32(3)),
    "first col = via bounds": (b"", 0, b"\0" + u32(2), b"\0" + u32(2)),
    "first >1": (b"", 0, b"\1" + u32(1), UNBOUNDED),
    "start > end": (b"", 0, b"\0" + u32(3), b"\0" + u32(1)),
    "excl==excl": (b"", 0, b"\1" + u32(2), b"\1" + u32(2)),
    "pe 2": (u32(2) + u32(2), 2, UNBOUNDED, UNBOUNDED),
    "pe 3": (u32(2) * 3, 3, UNBOUNDED, UNBOUNDED),
    "pe 0 + prefix bytes": (u32(9), 0, UNBOUNDED, UNBOUNDED),
    "short prefix": (b"\1\0", 1, UNBOUNDED, UNBOUNDED),
    "bad bound tag": (u32(2), 1, b"\7" + u32(2), UNBOUNDED),
    "short bound": (u32(2), 1, b"\0\1", UNBOUNDED),
    "trailing bound": (u32(2), 1, b"\0" + u32(2) + b"!", UNBOUNDED),
    "trailing prefix": (u32(2) + b"!", 1, UNBOUNDED, UNBOUNDED),
}
POINTS = {"point 2 col": ("point", u32(2) + u32(1)), "point short": ("short", u32(2))}
POINTS["point trailing"] = ("trail", u32(2) + u32(1) + b"!")


def found(script: Script, tag: str, *, has_rows: bool) -> Script:
    """Report what a scan found; only where there is an iterator is it read."""
    if not has_rows:
        return script.report(tag)
    return script.unless(0).drain(U32(OUT), DATA).report(tag, DATA + 4, U32(DATA))


def reads_rows(case: str, position: int = 0) -> bool:
    """Tell whether the real server made an iterator there."""
    reports = next(each["reports"] for each in CASES if each["case"] == case)
    return bool(reports[position][1] == "errno=0")


for tag, range_ in RANGES.items():
    case = f"range {tag}"
    SCRIPTS[case] = found(Script().range("two_a_b_idx_btree", *range_), tag, has_rows=reads_rows(case))
for case, (tag, key) in POINTS.items():
    SCRIPTS[case] = found(Script().point("two_a_b_idx_btree", key), tag, has_rows=reads_rows(case))
SCRIPTS["order with tx rows"] = (
    Script()
    .insert("two", u32(1) + u32(2) + text("tx"))
    .range("two_a_b_idx_btree", u32(1), 1, UNBOUNDED, UNBOUNDED)
    .drain(U32(OUT), DATA)
    .report("order", DATA + 4, U32(DATA))
    .text(b"rb")
    .end(1)
)
SCRIPTS["tx order 2"] = Script()
for b in range(4):
    SCRIPTS["tx order 2"].insert("two", two(9, b))
SCRIPTS["tx order 2"].point("two_a_b_idx_btree", u32(9) + u32(0), POINT_DELETE).count(U32(OUT)).report("x")
SCRIPTS["hash"] = (
    Script()
    .insert("hs", u32(5) + text("h"))
    .range("hs_k_idx_hash", b"", 0, b"\0" + u32(5), UNBOUNDED)
    .unless(0)
    .report("range")
)
SCRIPTS["direct"] = (
    found(
        Script().insert("dr", b"\1" + u32(5)).insert("dr", b"\3" + u32(6)).point("dr_k_idx_direct", b"\1"),
        "point",
        has_rows=True,
    )
    .range("dr_k_idx_direct", b"", 0, b"\1\1", UNBOUNDED)
    .drain(U32(OUT), DATA)
    .report("range", DATA + 4, U32(DATA))
    .point("dr_k_idx_direct", b"\3", POINT_DELETE)
    .count(U32(OUT))
    .report("del")
)
SCRIPTS["deletes"] = (
    Script()
    .range("two_a_b_idx_btree", u32(2), 1, UNBOUNDED, UNBOUNDED, RANGE_DELETE)
    .count(U32(OUT))
    .report("del range")
    .table("two")
    .put(ROW, u32(1) + u32(2) + u32(2) + text("22"))
    .call("datastore_delete_all_by_eq_bsatn", U32(TABLE), At(ROW), 18, At(OUT))
    .count(U32(OUT))
    .report("del eq")
    .call("datastore_delete_all_by_eq_bsatn", U32(TABLE), At(ROW), 9, At(OUT))
    .report("bad rel")
    .call("datastore_clear", U32(TABLE), At(OUT))
    .count(U64(OUT))
    .report("clear")
    .rows("two")
    .report("count")
)
FLOATS = [bytes.fromhex(each) for each in ("00" * 8, "00" * 7 + "80", "000000000000f87f", "010000000000f87f")]
SCRIPTS["float rows"] = Script()
for each in FLOATS:
    SCRIPTS["float rows"].insert("fx", each).insert("fv", each + text("a"))
SCRIPTS["float rows"].rows("fx").report("fixed: 0,-0,nan,nan1").rows("fv").report("var: 0,-0,nan,nan1")
SCRIPTS["float rows"].scan("fv").report("rows", DATA, U32(USED))
SCRIPTS["float delete"] = (
    Script()
    .table("fx")
    .put(ROW, u32(1) + FLOATS[1])
    .call("datastore_delete_all_by_eq_bsatn", U32(TABLE), At(ROW), 12, At(OUT))
    .count(U32(OUT))
    .report("delete -0.0 fixed")
    .rows("fx")
    .report("left")
)
SCRIPTS["event"] = (
    Script()
    .insert("ev", u32(1) + u32(1))
    .rows("ev")
    .report("count in tx")
    .scan("ev")
    .report("scan in tx", DATA, U32(USED))
)
SCRIPTS["event next"] = Script().rows("ev").report("next tx")
SCRIPTS["event unique"] = (
    Script()
    .insert("evu", pk(1, "a"))
    .insert("evu", pk(1, "b"))
    .report("unique in event table")
    .update("evu", "evu_id_idx_btree", pk(1, "c"))
    .report("update")
    .scan("evu")
    .report("rows", DATA, U32(USED))
)
SCRIPTS["timer"] = (
    Script()
    .put(ROW, b"span")
    .call("console_timer_start", At(ROW), 4)
    .keep(OUT, RESULT)
    .call("console_timer_end", U32(OUT))
    .unless(0)
    .call("console_timer_end", U32(OUT))
    .report("timer")
)
SCRIPTS["log"] = Script().put(ROW, b"a line").call("console_log", 2, 0, 0, 0, 0, 0xFFFFFFFF, At(ROW), 6).report("log")
SCRIPTS["start_tx in reducer"] = Script().call("procedure_start_mut_tx", At(OUT)).report("start_tx in reducer")
SCRIPTS["commit in reducer"] = Script().call("procedure_commit_mut_tx").report("commit in reducer")
SCRIPTS["abort in reducer"] = Script().call("procedure_abort_mut_tx").report("abort in reducer")
SCRIPTS["sleep in reducer"] = Script().call("procedure_sleep_until", 0)
SCRIPTS["schedule too long"] = (
    Script().insert("sc", pack("<QBq", 0, 0, 64**6 * 1000)).report("too long").rows("sc").report("count")
)
SCRIPTS["identity"] = (
    Script()
    .call("identity", At(ROW))
    .report("db identity", ROW, 32)
    .circumstances(ROW)
    .report("sender", ROW, 32)
    .report("conn", ROW + 32, 16)
)
SCRIPTS["fill pk"] = Script()
for number in range(100, 138):
    SCRIPTS["fill pk"].insert("pk", pk(number, "x" * 999))
SCRIPTS["fill pk"].rows("pk").report("big table")


def begin(script: Script) -> Script:
    """Open a transaction of a procedure."""
    return script.call("procedure_start_mut_tx", At(OUT))


def commit(script: Script) -> Script:
    """Commit it."""
    return script.call("procedure_commit_mut_tx")


SCRIPTS["procedure count outside tx"] = commit(
    begin(Script().table("pk")).report("errno of count outside tx")  # the number of `begin`: as it was recorded
)
SCRIPTS["procedure start twice"] = commit(begin(begin(Script())).report("second start"))
SCRIPTS["procedure commit without"] = commit(begin(commit(Script())).report("commit w/o tx"))
SCRIPTS["procedure dangling tx"] = begin(Script()).insert("pk", pk(555, "dangling")).report("lost")
SCRIPTS["procedure abort"] = begin(Script()).report("lost").call("procedure_abort_mut_tx")
SCRIPTS["procedure trap in tx"] = begin(Script()).insert("pk", pk(556, "trapped")).trap()
SCRIPTS["procedure ret 1"] = Script().end(1)
SCRIPTS["procedure bad return value"] = Script().text(b"\1")
SCRIPTS["procedure bytes"] = Script().text(text("abc"))
SCRIPTS["procedure trailing return"] = Script().text(text("abc") + b"!")
SCRIPTS["procedure sleep"] = commit(
    begin(Script().call("procedure_sleep_until", 0).keep(ROW, RESULT, 8)).report("after sleep", ROW, 8)
)
SCRIPTS["procedure sleep in tx"] = commit(begin(Script()).call("procedure_sleep_until", 0).report("sleep in tx"))
BYTES_RETURNED = ("procedure bad return value", "procedure bytes", "procedure trailing return")


VIEW_NAMES = ("v_rows", "v_sql", "v_old", "v_err", "v_bad", "v_write", "v_ret3", "v_qry", "v_opt")
FATAL_OF_PROCEDURES = "The module instance encountered a fatal error: "


class Ours(NamedTuple):
    """What this server answers instead, and why."""

    reason: str
    answer: Answer


def ours(reason: str, result: Any, *reports: Report) -> Ours:
    """Return an exception."""
    return Ours(reason, Answer(result, list(reports)))


MATERIALISED = "the real server reads a view that nobody subscribed to as empty; here every query materialises it"
OURS = {
    "schedule too long": ours(
        "the real server has put the row in before it refuses it; here a row that is refused is not there",
        "Ok",
        Report("too long", 13, 0, b""),
        Report("count", 0, 0, b""),
    ),
    "procedure sleep in tx": ours(
        "documented to trap; the real server does not look", {"InternalError": FATAL_OF_PROCEDURES + FATAL}
    ),
    "view v_rows": ours(MATERIALISED, 40),
    "view v_sql": ours(MATERIALISED, 1),
    "view v_old": ours(MATERIALISED, 40),
    "view v_qry": ours(MATERIALISED, 39),
    "view v_err": ours(MATERIALISED + "; and says why it cannot", "view says no"),
    "view v_bad": ours(MATERIALISED + "; and says why it cannot", FATAL),
    "view v_write": ours("a view that writes is refused, where the real server commits it", FATAL),
    "view v_ret3": ours(MATERIALISED + "; and says why it cannot", FATAL),
    "view v_opt": ours(
        "an optional row that is two is an error", "view `v_opt` returned 2 rows, its type says one at most"
    ),
}
"""Cases by name."""
PANICS = {
    "insert undecodable": 3,
    "insert trailing fixed": 3,
    "insert short fixed": 3,
    "hash": 10,
}
"""Where the real server traps, this one returns the documented number; every SDK panics at it, as these scripts do."""
CANNOT_WAIT = {
    "procedure count outside tx",
    "procedure start twice",
    "procedure commit without",
    "procedure dangling tx",
    "procedure abort",
    "procedure trap in tx",
    "procedure sleep",
    "procedure sleep in tx",
}
"""The public runtime has no fibers: a procedure cannot wait there, neither for its transaction nor for time."""


def program() -> bytes:
    """Return the guest with the tables and functions of the recordings."""
    return build_c_module("calls", DEFINITION, views=[bytes(each) for each in VIEWS], scheduled_reducer=1)


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Return the name of one of the runtimes."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def answers(runtime: str) -> tuple[str, dict[str, Answer]]:
    """Return the runtime, and what this server answers to each case, all run in their order in one database."""
    found: dict[str, Answer] = {}

    async def main() -> None:
        with trio.fail_after(1000):
            async with open_guest(program(), runtime) as guest:
                for name in NAMES:
                    found[name] = await answer(guest, name)
                    if name == "identity":
                        assert found[name].reports[0].data == guest.handle.identity

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return runtime, found


async def answer(guest: Guest, name: str) -> Answer:
    """Run a case."""
    if name.startswith("view "):
        try:
            return Answer(len(await guest.sql(f"SELECT * FROM {name.removeprefix('view ')}")), [])
        except QueryError as error:
            return Answer(str(error), [])
    script = SCRIPTS[name]
    if name.startswith("procedure"):
        returned = await guest.procedure(script, "pbytes" if name in BYTES_RETURNED else "prun")
        result: Any = (
            {"Returned": {"hex": returned.hex()}} if isinstance(returned, bytes) else {"InternalError": returned}
        )
    else:
        outcome = await guest.run(script)
        kinds = {OutcomeKind.FAILED: "Err", OutcomeKind.FAULT: "InternalError"}
        result = {kinds[outcome.kind]: outcome.text} if outcome.kind else "Ok"
    return Answer(result, await guest.reports())


def recorded(name: str) -> Answer:
    """Return what the real server answered."""
    case = CASES[NAMES.index(name)]
    result = case["result"]
    if name.startswith("view "):
        (told,) = json.loads(result)["OneOffQueryResult"]["result"]["ok"]["tables"]
        return Answer(told["rows"]["n"], [])
    reports = [
        Report(tag, int(code.removeprefix("errno=")), int(count.removeprefix("cnt=")), bytes.fromhex(data))
        for tag, code, count, data in case["reports"]
    ]
    return Answer(ast.literal_eval(result) if result.startswith("{") else result, reports)


def comparable(name: str, answer: Answer) -> Answer:
    """Return an answer without what differs from run to run: identities, times, backtraces."""
    result, reports = answer
    if name in ("identity", "procedure sleep"):
        reports = [each._replace(data=bytes(len(each.data)), counter=0) for each in reports]
    text = result.get("InternalError", "") if isinstance(result, dict) else ""
    if text.startswith(FATAL_OF_PROCEDURES):
        result = {"InternalError": FATAL_OF_PROCEDURES}
    return Answer(result, reports)


def test_what_the_real_server_traps_at_has_a_number(runtime: str) -> None:
    async def main() -> None:
        async with open_guest(program(), runtime) as guest:
            hash_range = ("hs_k_idx_hash", b"", 0, b"\0" + u32(5), UNBOUNDED)
            script = in_order(
                Script(),
                ("insert undecodable", lambda s: s.insert("pk", b"\1")),
                ("insert trailing fixed", lambda s: s.insert("pl", bytes(9))),
                ("insert short fixed", lambda s: s.insert("pl", bytes(7))),
                ("hash", lambda s: s.range(*hash_range)),
            )
            assert {each.tag: each.code for each in await guest.ask(script)} == PANICS

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_every_case_is_rebuilt() -> None:
    assert len(NAMES) == 75
    assert {*NAMES} == {*SCRIPTS} | {f"view {name}" for name in VIEW_NAMES}
    assert {*OURS} | CANNOT_WAIT <= {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_real_servers_answers(answers: tuple[str, dict[str, Answer]], name: str) -> None:
    runtime, found = answers
    got = comparable(name, found[name])
    if runtime == "public" and name in CANNOT_WAIT:
        assert got == Answer({"InternalError": FATAL_OF_PROCEDURES}, [])
    elif name in OURS:
        ours = comparable(name, OURS[name].answer)
        assert got == ours, OURS[name].reason
        assert ours != comparable(name, recorded(name)), "this case is no exception any more"
    else:
        assert got == comparable(name, recorded(name))
