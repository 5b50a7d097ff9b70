"""The module of the recordings of 0.11, in C by ABI 9, in a database: its calls, life and updates, by both runtimes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from stdb.actors.host import Host
from stdb.actors.refusals import PublishFailed, UpdateRejected
from stdb.actors.sink import OutcomeKind
from stdb.errors import ModuleFault
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.loader import load_wasm
from stdb.testing.hosts import TestClient, identity, open_host, virtual_now_us
from stdb.testing.sinks import Closed, Connected, Updated
from stdb.testing.storage import MemoryStorage
from tests.interop.c_guest import Guest, call
from tests.interop.probe_module import build_probe
from tests.wasm_guests import RUNTIMES

pytestmark = pytest.mark.slow

OWNER, ANN, BEN = identity(1), identity(7), bytes(range(32))
ADDRESS = bytes(range(16))
"""A connection id; 0.11 shows it the other way round."""
FATAL = "The instance encountered a fatal error."
Check = Callable[[Guest], Awaitable[None]]
Run = Callable[[Check], None]


@asynccontextmanager
async def opened(runtime: str, program: bytes, *others: bytes) -> AsyncIterator[Guest]:
    """Hold a database that runs a program, whose host knows the others too."""

    def loader(each: bytes) -> Callable[[], Any]:
        return lambda: load_wasm(each, virtual_now_us, runtime=RUNTIMES[runtime](engine()))

    async with open_host({each: loader(each) for each in (program, *others)}) as host:
        published = await host.publish(OWNER, program, name="probe", host_type="Wasm")
        handle = host.database(published.identity)
        await handle.ready()
        yield Guest(host, handle)


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Return the name of one of the runtimes."""
    name: str = request.param
    return name


def play(runtime: str, check: Check, *programs: bytes) -> None:
    """Run a check of a database that runs the first program, under virtual time."""

    async def main() -> None:
        with trio.fail_after(100_000):
            async with opened(runtime, *(programs or (build_probe(),))) as guest:
                await check(guest)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.fixture
def run(runtime: str) -> Run:
    """Return what runs a check of the module as recorded."""
    return lambda check: play(runtime, check)


async def texts(guest: Guest) -> list[str]:
    """Return what the messages say."""
    return [row[2] for row in sorted(await guest.sql("SELECT * FROM Message"), key=lambda row: row[1])]


def said(guest: Guest) -> list[tuple[str, str]]:
    """Return levels and lines of the module's own log."""
    return [(line["level"], line["message"]) for line in guest.lines() if line.get("target") == "probe"]


def shown(wire: bytes) -> bytes:
    """Return an identity as rows of 0.11 have it."""
    return wire[::-1]


COMMITTED = (OutcomeKind.COMMITTED, "")


def test_the_first_rows_and_lines(run: Run) -> None:
    async def check(guest: Guest) -> None:
        assert await guest.sql("SELECT * FROM Secret") == [(1, "top secret")]
        assert await texts(guest) == ["init"]
        ((sender, sent, _),) = await guest.sql("SELECT * FROM Message")
        assert sender == (shown(OWNER),)
        assert sent >= 1_700_000_000_000_000
        assert said(guest)[:2] == [("Info", "init, caller address:"), ("Info", "0" * 32)]

    run(check)


def test_who_is_there(run: Run) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN, int.from_bytes(ADDRESS, "little"))
        assert await call(client, "set_name", "Ann") == COMMITTED
        assert [row for row in await guest.sql("SELECT * FROM User") if row[0] == (shown(ANN),)] == [
            ((shown(ANN),), "Ann", True)
        ]
        assert ("Info", ADDRESS[::-1].hex()) in said(guest)
        await client.leave()
        assert ((shown(ANN),), "Ann", False) in await guest.sql("SELECT * FROM User")
        assert said(guest).count(("Info", "disconnected:")) >= 1

    run(check)


def test_calls_commit_refuse_and_break(run: Run) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert await call(client, "send_message", "hello") == COMMITTED
        assert await call(client, "send_message", "") == (OutcomeKind.FAILED, "Messages must not be empty")
        assert await call(client, "set_name", "") == (OutcomeKind.FAILED, "Names must not be empty")
        assert await call(client, "fail", "no way") == (OutcomeKind.FAILED, "no way")
        assert await call(client, "fail", "") == (OutcomeKind.FAILED, "")
        assert await call(client, "trap") == (OutcomeKind.FAULT, FATAL)
        assert await call(client, "nop") == COMMITTED
        assert await texts(guest) == ["init", "hello"]
        assert ("Info", "about to trap") in said(guest)

    run(check)


def test_items_are_counted_found_changed_and_deleted(run: Run) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        for name in ("axe", "bow"):
            assert await call(client, "add_item", 5, name, 1) == COMMITTED
        assert await call(client, "set_qty", 2, 9) == COMMITTED
        assert sorted(await guest.sql("SELECT * FROM Item")) == [(1, 5, "axe", 1), (2, 5, "bow", 9)]
        assert await call(client, "delete_item", 1) == COMMITTED
        assert await call(client, "delete_item", 1) == (OutcomeKind.FAILED, "no such item")
        assert await call(client, "set_qty", 1, 1) == (OutcomeKind.FAILED, "no such item")
        assert await guest.sql("SELECT name FROM Item WHERE owner = 5") == [("bow",)]
        assert await call(client, "mass", 200, 100) == COMMITTED
        assert await guest.sql("SELECT COUNT(*) AS n FROM Item WHERE owner = 7") == [(200,)]
        assert await call(client, "add_owner", 1, "one") == COMMITTED
        assert await call(client, "add_owner", 1, "two") == (OutcomeKind.FAILED, "owner exists")

    run(check)


EVERY = (
    *(1, True, -1, 2, -3, 4, -5, 6, -7, 8, -9, 10, 1.5, -2.25, "text", b"\0\xff", [1, 2], ["a", ""], -4, None),
    *((1, ()), (1, "label"), (3, -4), (shown(ANN),), (ADDRESS,)),
)


def test_every_type_goes_in_and_comes_out(run: Run) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert await call(client, "put_kinds", *EVERY) == COMMITTED
        assert await guest.sql("SELECT * FROM Kinds") == [EVERY]
        assert await call(client, "typed", (shown(ANN),), (ADDRESS,), "x", (2, ()), (1, 2)) == COMMITTED
        assert (await texts(guest))[-1].startswith("20000000" + shown(ANN).hex() + "10000000" + ADDRESS.hex())

    run(check)


@pytest.mark.parametrize(("who", "where"), [(bytes(31), ADDRESS), (bytes(33), ADDRESS), (shown(ANN), bytes(15))])
def test_an_identity_has_32_bytes_and_an_address_16(run: Run, who: bytes, where: bytes) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        kind, text = await call(client, "typed", (who,), (where,), None, (0, ()), (0, 0))
        assert kind == OutcomeKind.NOT_RUN
        assert text.startswith("invalid arguments for reducer typed")
        assert await texts(guest) == ["init"]

    run(check)


def test_nobody_hears_of_what_comes_to_nothing(run: Run) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        await call(client, "add_item", 5, "axe", 1)
        await client.subscribe(1, "SELECT * FROM Item")
        assert await call(client, "churn", 1) == COMMITTED
        assert not [each for each in client.messages(Updated) if each.update]  # type: ignore[attr-defined]
        assert await guest.sql("SELECT * FROM Item") == [(1, 5, "axe", 1)]

    run(check)


def test_timers_run_as_the_owner_with_no_address(run: Run) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert await call(client, "schedule", "once", 2_000_000) == COMMITTED
        await trio.sleep(1)
        assert await texts(guest) == ["init"]
        assert len(await guest.sql("SELECT * FROM Timer")) == 1
        await trio.sleep(2)
        assert await texts(guest) == ["init", "once"]
        assert await guest.sql("SELECT * FROM Timer") == []
        lines = said(guest)
        place = lines.index(("Info", "timer, caller address:"))
        assert lines[place + 1] == ("Info", "0" * 32)
        senders = [row[0] for row in await guest.sql("SELECT * FROM Message WHERE text = 'once'")]
        assert senders == [(shown(OWNER),)]
        assert await call(client, "repeat", "often", 1_000_000) == COMMITTED
        await trio.sleep(3.5)
        assert (await texts(guest)).count("often") == 3
        assert await call(client, "on_timer", (9, (0, 0), "by hand")) == COMMITTED
        assert "by hand" in await texts(guest)

    run(check)


def test_a_time_too_far_ahead_breaks_the_call(run: Run) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert await call(client, "schedule", "never", 1 << 62) == (OutcomeKind.FAULT, FATAL)
        assert await guest.sql("SELECT * FROM Timer") == []
        assert any("too long" in line["message"] for line in guest.lines())

    run(check)


def test_the_log_has_every_level(run: Run) -> None:
    async def check(guest: Guest) -> None:
        assert await call(TestClient(guest.handle, ANN), "log_all") == COMMITTED
        assert said(guest)[-6:] == [
            ("Error", "an error"),
            ("Warn", "a warning"),
            ("Info", "an info"),
            ("Debug", "a debug"),
            ("Trace", "a trace"),
            ("Panic", "a panic line"),
        ]
        assert [line["filename"] for line in guest.lines() if line.get("target") == "probe"][-1] == "mod.c"

    run(check)


def test_reserved_names_are_nobodys_to_call(run: Run) -> None:
    async def check(guest: Guest) -> None:
        for who in (OWNER, ANN):
            client = TestClient(guest.handle, who)
            for name in ("__init__", "__update__", "__identity_connected__", "__none__"):
                outcome = (await client.call(name)).outcome
                assert (outcome.kind, outcome.text) == (OutcomeKind.NOT_RUN, "no such reducer")

    run(check)


# ---------- updates ----------
async def update(host: Host, guest: Guest, program: bytes) -> None:
    """Publish another program to the database."""
    await host.publish(OWNER, program, identity=guest.handle.identity, host_type="Wasm")


def test_an_update_runs_its_reducer_before_the_eyes_of_subscribers(runtime: str) -> None:
    after = build_probe("addtable", "-DUPD_MSG")

    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        await call(client, "add_item", 5, "axe", 1)
        await client.subscribe(1, "SELECT * FROM Message")
        await update(guest.host, guest, after)
        assert await texts(guest) == ["init", "update"]
        (told,) = await client.wait_for(Updated, 1)
        assert isinstance(told, Updated)
        assert (told.event.reducer_name, told.event.caller) == ("__update__", OWNER)
        assert ("Info", "update, caller address:") in said(guest)
        assert await guest.sql("SELECT * FROM Fresh") == []
        assert await guest.sql("SELECT * FROM Item") == [(1, 5, "axe", 1)]
        assert await call(client, "add_item", 5, "bow", 1) == COMMITTED
        assert not client.messages(Closed)

    play(runtime, check, build_probe(), after)


@pytest.mark.parametrize(
    ("options", "text"),
    [(["-DFAIL_IN=R_UPDATE"], "refused by the module"), (["-DFAIL_IN=R_UPDATE", "-DFAIL_TRAP"], FATAL)],
)
def test_an_update_that_its_reducer_refuses_changes_nothing(runtime: str, options: list[str], text: str) -> None:
    after = build_probe("addtable", *options)

    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        before = guest.handle.program_hash
        with pytest.raises(PublishFailed, match=text):
            await update(guest.host, guest, after)
        assert guest.handle.program_hash == before
        assert guest.handle.definition.table("Fresh") is None
        assert await texts(guest) == ["init"]
        assert await call(client, "send_message", "still here") == COMMITTED
        await update(guest.host, guest, build_probe("noupdate"))
        assert await call(client, "send_message", "and here") == COMMITTED

    play(runtime, check, build_probe(), after, build_probe("noupdate"))


def test_what_updates_may_change(runtime: str) -> None:
    allowed = ["access", "addindex", "rmindex", "addarg", "noupdate"]
    refused = ["addcol"]
    programs = {name: build_probe(name) for name in (*allowed, *refused)}

    async def check(guest: Guest) -> None:
        await call(TestClient(guest.handle, ANN), "add_owner", 1, "one")
        for name in allowed:
            await update(guest.host, guest, programs[name])
            assert await guest.sql("SELECT * FROM Owner") == [(1, "one")], name
        for name in refused:
            with pytest.raises(UpdateRejected, match="Owner"):
                await update(guest.host, guest, programs[name])
        assert await guest.sql("SELECT * FROM Owner") == [(1, "one")]

    play(runtime, check, build_probe(), *programs.values())


# ---------- failures of the life cycle ----------
@pytest.mark.parametrize("more", [[], ["-DFAIL_TRAP"]])
def test_a_connect_reducer_that_fails_refuses_nobody(runtime: str, more: list[str]) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        await client.wait_for(Connected, 1)
        assert await call(client, "send_message", "hello") == COMMITTED
        assert not client.messages(Closed)
        assert await guest.sql("SELECT * FROM User") == []
        assert await guest.sql("SELECT * FROM st_client") == []
        await client.leave()
        assert [row[1:] for row in await guest.sql("SELECT * FROM User WHERE online = false")] != []
        assert ("Info", "disconnected:") in said(guest)

    play(runtime, check, build_probe("", "-DFAIL_IN=R_IDENTITY_CONNECTED", *more))


def test_a_disconnect_reducer_that_fails_leaves_no_client(runtime: str) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        await client.wait_for(Connected, 1)
        await client.leave()
        identities = [row[0] for row in await guest.sql("SELECT * FROM st_client")]
        assert int.from_bytes(ANN, "little") not in identities

    play(runtime, check, build_probe("", "-DFAIL_IN=R_IDENTITY_DISCONNECTED"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-DFAIL_IN=R_INIT"], "refused by the module"),
        (["-DFAIL_IN=R_INIT", "-DFAIL_TRAP"], FATAL),
    ],
)
def test_an_init_that_fails_leaves_nothing(runtime: str, options: list[str], text: str) -> None:
    bad = build_probe("", *options)

    async def check(guest: Guest) -> None:
        with pytest.raises(PublishFailed, match=text):
            await guest.host.publish(OWNER, bad, name="other", host_type="Wasm")
        made = await guest.host.publish(OWNER, build_probe(), name="other", host_type="Wasm")
        assert made.operation == "created"

    play(runtime, check, build_probe(), bad)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-DFAIL_SETUP"], "setup function returned an error: setup failed"),
        (['-DABI="spacetime_9.1"'], r"abi version 9\.1 is not supported \(host implements 9\.0\)"),
        (['-DABI="spacetime_8.0"'], r"abi version 8\.0 is not supported"),
        (['-DABI="spacetime_10.0"'], "unknown import|incompatible|bad call_reducer signature"),
    ],
)
def test_programs_that_do_not_fit_are_refused(runtime: str, options: list[str], text: str) -> None:
    with pytest.raises(ModuleFault, match=text):
        load_wasm(build_probe("", *options), lambda: 0, runtime=RUNTIMES[runtime](engine()))


def test_a_restart_keeps_everything(runtime: str) -> None:
    program = build_probe()

    def load() -> Any:
        return load_wasm(program, virtual_now_us, runtime=RUNTIMES[runtime](engine()))

    async def main() -> None:
        storage = MemoryStorage()
        with trio.fail_after(100_000):
            async with open_host({program: load}, storage) as host:
                published = await host.publish(OWNER, program, name="probe", host_type="Wasm")
                await host.database(published.identity).ready()
                client = TestClient(host.database(published.identity), ANN)
                assert await call(client, "add_item", 5, "axe", 1) == COMMITTED
                assert await call(client, "put_kinds", *EVERY) == COMMITTED
                assert await call(client, "schedule", "later", 60_000_000) == COMMITTED
            async with open_host({program: load}, storage) as host:
                handle = host.database(published.identity)
                await handle.ready()
                guest = Guest(host, handle)
                assert await guest.sql("SELECT * FROM Kinds") == [EVERY]
                client = TestClient(handle, ANN)
                assert await call(client, "add_item", 5, "bow", 1) == COMMITTED
                names = [row[1:] for row in sorted(await guest.sql("SELECT * FROM Item"))]
                assert names == [(5, "axe", 1), (5, "bow", 1)]
                await trio.sleep(61)
                assert "later" in await texts(guest)
                online = dict((row[0], row[2]) for row in await guest.sql("SELECT * FROM User"))
                assert online[shown(ANN),] is True
        storage.close()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_sql_knows_the_identities_of_0_11(run: Run) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN, int.from_bytes(ADDRESS, "little"))
        await call(client, "set_name", "Ann")
        await call(client, "put_kinds", *EVERY[:-2], (shown(ANN),), (ADDRESS[::-1],))
        for literal in (f"0x{shown(ANN).hex()}", f"X'{shown(ANN).hex()}'"):
            assert await guest.sql(f"SELECT name FROM User WHERE identity = {literal}") == [("Ann",)]
            assert await guest.sql(f"SELECT id FROM Kinds WHERE ident = {literal}") == [(1,)]
        assert await guest.sql(f"SELECT id FROM Kinds WHERE addr = 0x{ADDRESS[::-1].hex()}") == [(1,)]
        assert await guest.sql("SELECT u.name FROM User u JOIN Kinds k ON u.identity = k.ident") == [("Ann",)]
        assert await guest.sql(f"SELECT name FROM User WHERE identity = 0x{BEN.hex()}") == []
        await guest.sql(f"INSERT INTO Message (sender, sent, text) VALUES (0x{BEN.hex()}, 5, 'by hand')")
        assert await guest.sql(f"SELECT sent FROM Message WHERE sender = 0x{BEN.hex()}") == [(5,)]
        await guest.sql(f"DELETE FROM Message WHERE sender = 0x{BEN.hex()}")
        assert await texts(guest) == ["init"]
        applied = await client.subscribe(1, "SELECT * FROM User WHERE identity = :sender")
        (row,) = (row for fragment in applied.rows for row in fragment.inserts)
        assert row[4:36] == shown(ANN)

    run(check)
