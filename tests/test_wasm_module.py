"""WebAssembly modules as a database calls them: outcomes, traps, time limits, procedures."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pytest

from stdb.actors.epochs import keep_ticking
from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.errors import DecodeError, HttpError, ModuleFault, ReducerError, ReducerTimeout
from stdb.modules.protocol import (
    Expiry,
    HttpRequest,
    HttpResponse,
    ProcedureCall,
    Queueing,
    ReadSet,
    ReducerCall,
    Suspending,
    ViewCall,
    ViewSql,
)
from stdb.modules.wasm import loader
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.http import encode_request
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.module import WasmModule
from stdb.modules.wasm.public import PublicRuntime
from stdb.modules.wasm.raw import RawRuntime
from stdb.modules.wasm.runtime import Limits, Runtime
from stdb.sql.work import Steps
from stdb.sql.work import finish as run_through
from tests.wasm_guests import DEFINITION, IDENTITY, NOW_US, RUNTIMES, Lines, module_text, wat

T = TypeVar("T")
ARGS = bytes(4)
"""Arguments of the reducer `run` and of the procedures: an empty array."""
SAY = """(func $say (param $sink i32) (param $at i32) (param $size i32)
  (i32.store (i32.const 32) (local.get $size))
  (drop (call $write (local.get $sink) (local.get $at) (i32.const 32))))"""
COUNT = """(global $calls (mut i32) (i32.const 0))
  (func $count (result i32) (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (global.get $calls))"""


class World:
    """A module attached to tables."""

    def __init__(self, program: bytes, runtime: Runtime | None = None, limits: Limits | None = None) -> None:
        self.log = Lines()
        self.module: WasmModule = load_wasm(program, lambda: NOW_US, runtime=runtime, limits=limits or Limits())
        self.datastore = Datastore()
        self.datastore.begin(NOW_US)
        self.datastore.create_tables(self.module.definition)
        assert self.datastore.transaction is not None
        self.datastore.transaction.commit()
        self.module.attach(self.datastore, IDENTITY, self.log)
        self.run = self.module.reducer(0)

    def call(self, args: bytes = ARGS) -> Delta | None:
        """Call the reducer `run` as a database does."""
        transaction = self.datastore.begin(NOW_US)
        try:
            self.run(ReducerCall(IDENTITY, None, NOW_US, transaction), args)
            return transaction.commit()
        except BaseException:
            transaction.rollback()
            raise


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Return one of the runtimes."""
    made: Runtime = RUNTIMES[request.param](engine())
    return made


def program(reducer: str, more: str = "", imports: str = "") -> bytes:
    """Return a program with the tables and functions of `abi10_definition.json`."""
    return wat(module_text(reducer, SAY + COUNT + more, imports, DEFINITION))


def test_a_reducer_refuses_with_its_text(runtime: Runtime) -> None:
    text = '(data (i32.const 80000) "no\\ff!")'
    world = World(program("(call $say (local.get 9) (i32.const 80000) (i32.const 4)) i32.const 1", text), runtime)
    with pytest.raises(ReducerError, match="no\ufffd!"):
        world.call()


def test_statics_survive_errors_but_no_trap(runtime: Runtime) -> None:
    body = """(drop (call $count))
      (if (i32.eq (global.get $calls) (i32.const 2)) (then (return (i32.const 1))))
      (if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))
      i32.const 0"""
    world = World(program(body), runtime)
    for _ in range(2):
        world.call()
        with pytest.raises(ReducerError):
            world.call()
        with pytest.raises(ModuleFault) as caught:
            world.call()
        assert str(caught.value) == "The instance encountered a fatal error."
        assert "wasm `unreachable` instruction executed" in (caught.value.report or "")


LOG = """(import "spacetime_10.0" "console_log"
  (func $log (param i32 i32 i32 i32 i32 i32 i32 i32)))"""
TEXTS = """(data (i32.const 80000) "src/lib.rs: oh no")
  (func $tell (param $level i32) (call $log (local.get $level) (i32.const 0) (i32.const 0) (i32.const 80000)
    (i32.const 10) (i32.const 7) (i32.const 80012) (i32.const 5)))"""


def test_a_panic_that_traps_is_reported_once_with_what_was_running(runtime: Runtime) -> None:
    text = TEXTS + "(func $panics (call $tell (i32.const 101)) unreachable)"
    world = World(program("(call $panics) i32.const 0", text, LOG), runtime)
    for _ in range(2):
        with pytest.raises(ModuleFault) as caught:
            world.call()
        fault = caught.value
        assert (fault.report, fault.filename, fault.line) == ("oh no", "src/lib.rs", 7)
        assert fault.trace is not None
        assert fault.trace[0] == "panics"
        assert len(fault.trace) == 2
    assert world.log.lines == []


@pytest.mark.parametrize("rest", ["i32.const 0", "i32.const 1", "i32.const 2", "(call $outside) i32.const 0"])
def test_a_panic_that_ends_otherwise_is_logged_by_itself(runtime: Runtime, rest: str) -> None:
    text = TEXTS + "(func $outside (drop (call $write (i32.const 1) (i32.const -8) (i32.const 32))))"
    body = f"(call $tell (i32.const 101)) (call $tell (i32.const 1)) (call $tell (i32.const 101)) {rest}"
    world = World(program(body, text, LOG), runtime)
    with suppress(ModuleFault, ReducerError):
        world.call()
    assert world.log.lines == [(level, "oh no") for level in ("Panic", "Warn", "Panic")]


def test_an_unknown_code_is_a_fault_and_keeps_the_instance(runtime: Runtime) -> None:
    world = World(program("(i32.add (call $count) (i32.const 1))"), runtime)
    for code in (2, 3):
        with pytest.raises(ModuleFault) as caught:
            world.call()
        assert caught.value.report == f"run returned the code {code}, known are 0 and 1"


def test_arguments_are_checked_before_anything_runs(runtime: Runtime) -> None:
    world = World(program("unreachable"), runtime)
    for args in (b"", b"\1\0\0\0", b"\xff\xff\xff\xff"):
        with pytest.raises(DecodeError):
            world.call(args)


def test_a_trap_rolls_back(runtime: Runtime) -> None:
    imports = """(import "spacetime_10.0" "datastore_insert_bsatn" (func $insert (param i32 i32 i32) (result i32)))
      (import "spacetime_10.0" "table_id_from_name" (func $id (param i32 i32 i32) (result i32)))"""
    body = """(drop (call $id (i32.const 80000) (i32.const 2) (i32.const 48)))
      (i32.store (i32.const 32) (i32.const 8))
      (if (call $insert (i32.load (i32.const 48)) (i32.const 80008) (i32.const 32)) (then (return (i32.const 1))))
      (if (i32.eqz (local.get 8)) (then unreachable))
      (i32.eq (call $count) (i32.const 1)) (if (then unreachable)) i32.const 0"""
    world = World(program(body, '(data (i32.const 80000) "pl")', imports), runtime)
    table = world.datastore.table("pl")
    for _ in range(2):
        with pytest.raises(ModuleFault):
            world.call()
        assert len(table) == 0
    table.verify()


def test_deep_recursion_and_bad_memory_are_traps(runtime: Runtime) -> None:
    for body in ("(call $deep) i32.const 0", "(i32.load (i32.const -8))", "(i32.div_u (i32.const 1) (i32.const 0))"):
        with pytest.raises(ModuleFault, match="fatal error"):
            World(program(body, "(func $deep (call $deep))"), runtime).call()


def test_a_start_function_that_calls_the_host_has_no_memory_yet(runtime: Runtime) -> None:
    start = "(func $first (drop (call $write (i32.const 0) (i32.const 64) (i32.const 32)))) (start $first)"
    with pytest.raises(ModuleFault, match="out of bounds pointer"):
        World(program("i32.const 0", start), runtime)


def test_memory_is_bounded(runtime: Runtime) -> None:
    world = World(program("(i32.eq (memory.grow (i32.const 60)) (i32.const -1))"), runtime, Limits(1 << 20))
    with pytest.raises(ReducerError):
        world.call()


def test_a_reducer_that_does_not_end_is_stopped(runtime: Runtime) -> None:
    keep_ticking()
    world = World(program("(loop (br 0)) i32.const 0"), runtime, Limits(call_ticks_max=6))
    for _ in range(2):
        with pytest.raises(ReducerTimeout):
            world.call()


def test_an_expired_transaction_stops_its_reducer() -> None:
    keep_ticking()
    imports = '(import "spacetime_10.0" "table_id_from_name" (func $id (param i32 i32 i32) (result i32)))'
    body = "(loop (drop (call $id (i32.const 80000) (i32.const 2) (i32.const 48))) (br 0)) i32.const 0"
    world = World(program(body, '(data (i32.const 80000) "pl")', imports))
    transaction = world.datastore.begin(NOW_US)
    transaction.expired = True
    with pytest.raises(ReducerTimeout):
        world.run(ReducerCall(IDENTITY, None, NOW_US, transaction), ARGS)
    transaction.rollback()


def test_a_reducer_comes_back_when_an_epoch_has_passed() -> None:
    keep_ticking()
    loop = """(loop (local.set 1 (i64.add (local.get 1) (i64.const 1)))
      (br_if 0 (i64.lt_u (local.get 1) (i64.const 200000000))))"""
    world = World(program(f"(local.set 1 (i64.const 0)) {loop} i32.const 0"), limits=Limits(call_ticks_max=4_000))
    assert isinstance(world.module, Suspending)
    transaction = world.datastore.begin(NOW_US)
    steps = world.module.reducer_steps(0)(ReducerCall(IDENTITY, None, NOW_US, transaction), ARGS)
    assert steps is not None
    assert len(list(steps)) >= 2
    transaction.rollback()
    world.call()


def test_a_suspended_reducer_is_given_up() -> None:
    keep_ticking()
    world = World(program("(if (i32.eq (call $count) (i32.const 1)) (then (loop (br 0)))) i32.const 0"))
    transaction = world.datastore.begin(NOW_US)
    steps = world.module.reducer_steps(0)(ReducerCall(IDENTITY, None, NOW_US, transaction), ARGS)
    assert steps is not None
    next(steps)
    steps.close()
    transaction.rollback()
    replace_limit(world)
    with pytest.raises(ReducerTimeout):  # the statics are new, too
        world.call()


def replace_limit(world: World) -> None:
    """Let calls take three epochs."""
    world.module._limits = world.module._limits._replace(call_ticks_max=3)


def test_calls_are_queued_whatever_becomes_of_the_caller(runtime: Runtime) -> None:
    imports = '(import "spacetime_10.0" "volatile_nonatomic_schedule_immediate" (func $queue (param i32 i32 i32 i32)))'
    body = "(call $queue (i32.const 80000) (i32.const 3) (i32.const 80003) (i32.const 2)) i32.const 1"
    world = World(program(body, '(data (i32.const 80000) "runab")', imports), runtime)
    assert isinstance(world.module, Queueing)
    queued: list[tuple[str, bytes]] = []
    world.module.immediate = lambda *call: queued.append(call)
    with pytest.raises(ReducerError):
        world.call()
    assert queued == [("run", b"ab")]


VIEW = """(func (export "__call_view_anon__") (param i32 i32 i32) (result i32)
  (call $say (local.get 2) (i32.const 80000) (i32.const {size})) i32.const {code})"""


@pytest.mark.parametrize(
    ("code", "result", "wanted"),
    [
        (0, bytes.fromhex("0100000001000000 01000000 61"), [bytes.fromhex("01000000 01000000 61")]),
        (2, bytes.fromhex("00 00000000"), []),
        (2, b"\1\x08\0\0\0SELECT 1", ViewSql("SELECT 1")),
        (2, b"", ModuleFault),
        (2, b"\0\1\0\0\0", ModuleFault),
        (2, b"\0\xff\xff\xff\xff\0", ModuleFault),
        (0, b"", ModuleFault),
        (1, b"no view", ReducerError),
        (3, b"", ModuleFault),
    ],
)
def test_what_views_return(runtime: Runtime, code: int, result: bytes, wanted: Any) -> None:
    text = "".join(f"\\{byte:02x}" for byte in result)
    more = VIEW.format(size=len(result), code=code) + f'(data (i32.const 80000) "{text}")'
    world = World(program("i32.const 0", more), runtime)
    position = next(i for i, view in enumerate(world.module.definition.views) if view.index == 0)
    run = world.module.view(position)
    if isinstance(wanted, type):
        with pytest.raises(wanted):
            run(ViewCall(None, b"", ReadSet()))
    else:
        assert run(ViewCall(None, b"", ReadSet())) == wanted


# Procedures


class HostOf:
    """What a procedure under test may ask for; nothing really waits."""

    cancelled: type[BaseException] = KeyboardInterrupt

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = NOW_US
        self.asked: list[Any] = []

    def now_us(self) -> int:
        return self.now

    @contextmanager
    def running(self) -> Iterator[Expiry]:
        yield ReadSet()

    async def transact(self, run: Callable[[ReducerCall], T]) -> T:
        def run_at_once(call: ReducerCall) -> Steps[T]:
            yield from ()
            return run(call)

        return await self.transact_in_steps(run_at_once)

    async def transact_in_steps(self, run: Callable[[ReducerCall], Steps[T]]) -> T:
        transaction = self.world.datastore.begin(self.now)
        try:
            result = run_through(run(ReducerCall(IDENTITY, None, self.now, transaction)))
        except BaseException:
            transaction.rollback()
            self.asked.append("rolled back")
            raise
        self.asked.append("committed" if transaction.commit() else "nothing to commit")
        return result

    async def pause(self) -> None:
        self.asked.append("pause")

    async def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e6)
        self.asked.append(seconds)

    async def http(self, request: HttpRequest) -> HttpResponse:
        self.asked.append(request)
        if request.method == "HEAD":
            raise HttpError("nobody there")
        return HttpResponse(200, (("a", b"b"),), b"body")


def finish(awaitable: Awaitable[T]) -> T:
    """Run what waits for nothing."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")


WAITS = """
  (import "spacetime_10.3" "procedure_sleep_until" (func $sleep (param i64) (result i64)))
  (import "spacetime_10.3" "procedure_start_mut_tx" (func $start (param i32) (result i32)))
  (import "spacetime_10.3" "procedure_commit_mut_tx" (func $commit (result i32)))
  (import "spacetime_10.3" "procedure_abort_mut_tx" (func $abort (result i32)))
  (import "spacetime_10.3" "procedure_http_request" (func $http (param i32 i32 i32 i32 i32) (result i32)))
  (import "spacetime_10.0" "bytes_source_read" (func $read (param i32 i32 i32) (result i32)))
  (import "spacetime_10.0" "table_id_from_name" (func $id (param i32 i32 i32) (result i32)))
  (import "spacetime_10.0" "datastore_insert_bsatn" (func $insert (param i32 i32 i32) (result i32)))"""
HELPERS = """(data (i32.const 80000) "pl")
  (func $put (drop (call $id (i32.const 80000) (i32.const 2) (i32.const 48)))
    (i32.store (i32.const 32) (i32.const 8))
    (if (call $insert (i32.load (i32.const 48)) (i32.const 80008) (i32.const 32)) (then unreachable)))"""


def procedure(body: str, data: str = "", limits: Limits | None = None) -> tuple[World, HostOf, Callable[[], bytes]]:
    """Return a world, the host of its procedures and a function that calls the one of this body."""
    export = f'(func (export "__call_procedure__") (param i32 i64 i64 i64 i64 i64 i64 i64 i32 i32) (result i32) {body})'
    world = World(program("i32.const 0", HELPERS + data + export, WAITS), RawRuntime(engine()), limits)
    host = HostOf(world)
    call = ProcedureCall(IDENTITY, None, NOW_US, None, host)
    return world, host, lambda: finish(world.module.procedure(1)(call, ARGS))


def test_a_procedure_sleeps_and_returns() -> None:
    body = f"""(i64.store (i32.const 80100) (call $sleep (i64.const {NOW_US + 2_000_000})))
      (drop (call $sleep (i64.const -1)))
      (call $say (local.get 9) (i32.const 80100) (i32.const 8)) i32.const 0"""
    _, host, call = procedure(body)
    assert int.from_bytes(call(), "little") == NOW_US + 2_000_000
    assert host.asked == [2.0, 0.0]


def test_a_procedure_commits_and_aborts() -> None:
    put = "(if (call $start (i32.const 64)) (then unreachable)) (call $put)"
    again = "(if (i32.ne (call $start (i32.const 72)) (i32.const 17)) (then unreachable))"
    ended = "(if (i32.ne (call $commit) (i32.const 18)) (then unreachable))"
    world, host, call = procedure(f"{put} {again} (drop (call $abort)) {ended} {put} (drop (call $commit)) i32.const 0")
    assert call() == b""
    assert host.asked == ["rolled back", "committed"]
    assert len(world.datastore.table("pl")) == 1
    assert call() == b""  # the instance is used again, its id of the table with it


@pytest.mark.parametrize("end", ["i32.const 0", "unreachable"])
def test_a_transaction_left_open_is_rolled_back(end: str) -> None:
    world, host, call = procedure(f"(drop (call $start (i32.const 64))) (call $put) {end}")
    if end == "unreachable":
        with pytest.raises(ModuleFault):
            call()
    else:
        assert call() == b""
        assert world.log.lines == [("Error", "aborting dangling anonymous transaction in procedure pbytes")]
    assert host.asked == ["rolled back"]
    assert len(world.datastore.table("pl")) == 0


@pytest.mark.parametrize(("method", "code"), [("POST", 0), ("HEAD", 21)])
def test_a_procedure_asks_other_servers(method: str, code: int) -> None:
    request = encode_request(HttpRequest(method, "http://there/", (("x", b"y"),), timeout_us=5))
    text = "".join(f"\\{byte:02x}" for byte in request)
    body = f"""(i32.store8 (i32.const 80400)
        (call $http (i32.const 80200) (i32.const {len(request)}) (i32.const 80500) (i32.const 3) (i32.const 80600)))
      (call $say (local.get 9) (i32.const 80400) (i32.const 1))
      (i32.store (i32.const 40) (i32.const 99))
      (drop (call $read (i32.load (i32.const 80600)) (i32.const 80700) (i32.const 40)))
      (call $say (local.get 9) (i32.const 80700) (i32.load (i32.const 40))) i32.const 0"""
    _, host, call = procedure(body, f'(data (i32.const 80200) "{text}") (data (i32.const 80500) "abc")')
    got = call()
    assert got[0] == code
    assert (b"nobody there" in got) == bool(code)
    assert host.asked == [HttpRequest(method, "http://there/", (("x", b"y"),), b"abc", timeout_us=5)]


def test_a_procedure_that_returns_a_code_is_a_fault() -> None:
    with pytest.raises(ModuleFault) as caught:
        procedure("i32.const 1")[2]()
    assert "returned the code 1" in (caught.value.report or "")


def test_the_public_runtime_cannot_wait() -> None:
    export = """(func (export "__call_procedure__") (param i32 i64 i64 i64 i64 i64 i64 i64 i32 i32) (result i32)
      (drop (call $sleep (i64.const 0))) i32.const 0)"""
    world = World(program("i32.const 0", HELPERS + export, WAITS), PublicRuntime(engine()))
    call = ProcedureCall(IDENTITY, None, NOW_US, None, HostOf(world))
    with pytest.raises(ModuleFault) as caught:
        finish(world.module.procedure(0)(call, ARGS))
    assert "waits, which this runtime cannot" in (caught.value.report or "")


def test_a_module_that_waits_is_refused_where_nothing_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "best_runtime", lambda: PublicRuntime(engine()))
    with pytest.raises(ModuleFault, match=r"`spacetime_10.3::procedure_[a-z_]+`, which waits, and this server cannot"):
        load_wasm(program("i32.const 0", HELPERS, WAITS), lambda: NOW_US)
    load_wasm(wat(module_text("i32.const 0", HELPERS, WAITS)), lambda: NOW_US)  # it has no procedures
    load_wasm(program("i32.const 0"), lambda: NOW_US)  # its procedures do not wait


def test_a_procedure_without_end_is_stopped() -> None:
    keep_ticking()
    _, host, call = procedure("(loop (br 0)) i32.const 0", limits=Limits(call_ticks_max=8))
    with pytest.raises(ReducerTimeout):
        call()
    assert host.asked.count("pause") >= 3, "others ran meanwhile"


def test_a_new_attachment_makes_a_new_instance(runtime: Runtime) -> None:
    world = World(program("(i32.gt_u (call $count) (i32.const 1))"), runtime)
    world.call()
    world.module.attach(world.datastore, IDENTITY, world.log)
    world.call()
    with pytest.raises(ReducerError):
        world.call()
