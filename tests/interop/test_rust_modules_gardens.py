"""Modules in Rust against crates from 0.11.1 to 2.14.0: every type, scan and counter, timers, rules, updates."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from stdb.actors.epochs import keep_ticking
from stdb.actors.refusals import PublishFailed
from stdb.actors.sink import OutcomeKind
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import Limits
from stdb.testing.hosts import TestClient, identity, open_host, virtual_now_us
from stdb.testing.sinks import Closed, Connected, Updated
from tests.interop.c_guest import Guest, call
from tests.interop.gardens import Garden, versions
from tests.interop.module_house import PATIENT
from tests.wasm_guests import RUNTIMES

pytestmark = pytest.mark.slow

OWNER, ANN, BEN = identity(1), identity(7), identity(8)
ADDRESS = bytes(range(16))
FATAL = "The instance encountered a fatal error."
WIDTHS_0_11 = [f"{sign}{width}" for width in (8, 16, 32, 64, 128) for sign in "IU"]


VERSIONS = ("0.11.1", "1.0.1", "1.12.0", "2.8.3", "2.10.1", "2.14.0")
LATER = versions(*VERSIONS[1:])
OLDEST = Garden("0.11.1")


@pytest.fixture(params=versions(*VERSIONS))
def garden(request: pytest.FixtureRequest) -> Garden:
    """Return one of the versions."""
    found: Garden = request.param
    return found


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Return the name of one of the runtimes."""
    name: str = request.param
    return name


@asynccontextmanager
async def opened(*programs: bytes, runtime: str = "raw", limits: Limits = PATIENT) -> AsyncIterator[Guest]:
    """Hold a database that runs the first program, whose host knows the others too."""

    def loader(each: bytes) -> Callable[[], Any]:
        return lambda: load_wasm(each, virtual_now_us, runtime=RUNTIMES[runtime](engine()), limits=limits)

    async with open_host({each: loader(each) for each in programs}) as host:
        published = await host.publish(OWNER, programs[0], name="garden", host_type="Wasm")
        handle = host.database(published.identity)
        await handle.ready()
        yield Guest(host, handle)


def play(check: Callable[[Guest], Awaitable[None]], *programs: bytes, **settings: Any) -> None:
    """Run a check of a database under virtual time."""

    async def main() -> None:
        with trio.fail_after(100_000):
            async with opened(*programs, **settings) as guest:
                await check(guest)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def diary(guest: Guest, garden: Garden) -> list[str]:
    """Return what is written."""
    return [row[1] for row in await guest.sql(f"SELECT * FROM {garden.table('Diary')}")]


COMMITTED = (OutcomeKind.COMMITTED, "")
PLANTS = (("rose", 1, 5), ("lily", 1, 3), ("oak", 2, 9), ("elm", 2, 5), ("fern", 3, 1))


async def sow(client: TestClient) -> None:
    """Plant a few."""
    for plant in PLANTS:
        assert await call(client, "sow", *plant) == COMMITTED


def test_every_type_goes_in_and_comes_out(garden: Garden, runtime: str) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN, int.from_bytes(ADDRESS, "little"))
        assert await call(client, "put_every", 4) == COMMITTED
        ((*numbers,),) = await guest.sql(f"SELECT * FROM {garden.table('Every')}")
        wide = [] if garden.is_0_11 else [-256, 256]
        assert numbers[:12] + numbers[12 : 12 + len(wide)] == [
            4,
            True,
            -8,
            8,
            -16,
            16,
            -32,
            32,
            -64,
            64,
            -128,
            128,
            *wide,
        ]
        rest = numbers[12 + len(wide) :]
        assert rest[:6] == [1.5, -2.25, "héllo", b"\0\xff", garden.who(ANN), garden.who(ADDRESS)]
        spans = [] if garden.is_0_11 else [-5, (0, 9)]
        assert rest[7 : 7 + len(spans)] == spans
        last = [(1, ()), (1, "rose"), (1, -1), 7, None, [1, -2, 3], ["a", ""], [(2, 3)]]
        assert rest[7 + len(spans) :] == last
        assert (await call(TestClient(guest.handle, BEN), "put_every", 4))[0] == OutcomeKind.FAILED

    play(check, garden.build(), runtime=runtime)


def test_arguments_of_every_kind(garden: Garden, runtime: str) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        arguments = (garden.who(BEN), garden.who(ADDRESS), (2, ()), (0, 7), (1, 2), "so", [-(1 << 127), 1])
        assert await call(client, "echo", *arguments) == COMMITTED
        said = (await diary(guest, garden))[-1]
        assert BEN[::-1].hex() in said
        assert ADDRESS[::-1].hex() in said
        assert said.endswith(f'Blue Bed(7) Point {{ x: 1, y: 2 }} Some("so") [{-(1 << 127)}, 1]')

    play(check, garden.build(), runtime=runtime)


def test_rows_are_written_changed_and_taken_out(garden: Garden, runtime: str) -> None:
    plant = garden.table("Plant")

    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        await sow(client)
        assert await call(client, "sow", "", 1, 1) == (OutcomeKind.FAILED, garden.error("a plant needs a name"))
        kind, text = await call(client, "sow", "rose", 9, 9)
        assert kind == OutcomeKind.FAILED
        assert "unique" in text
        assert await call(client, "grow", "lily", 4) == COMMITTED
        assert await call(client, "grow", "weed", 4) == (OutcomeKind.FAILED, garden.error("no such plant"))
        assert await guest.sql(f"SELECT * FROM {plant} WHERE name = 'lily'") == [(2, "lily", 1, 7, True)]
        assert await call(client, "fell_one", "fern") == COMMITTED
        assert (await call(client, "fell_one", "fern"))[0] == OutcomeKind.FAILED
        assert await call(client, "fell", 2) == COMMITTED
        assert sorted(row[1] for row in await guest.sql(f"SELECT * FROM {plant}")) == ["lily", "rose"]
        assert any(line["message"] == "2 plants of kind 2 are gone" for line in guest.lines())

    play(check, garden.build(), runtime=runtime)


SCANS_0_11 = {
    "all": "elm,fern,lily,oak,rose",
    "kind": "lily,rose",
    "height": "elm,rose",
    "alive": "elm,fern,lily,oak,rose",
    "id": "rose",
    "name": "rose",
    "none": "",
    "eq": "lily,rose",
    "ne": "elm,fern,oak",
    "lt": "fern,lily",
    "le": "elm,fern,lily,rose",
    "gt": "oak",
    "ge": "elm,oak,rose",
    "and": "rose",
    "or": "elm,oak",
}
SCANS_1 = {
    "all": "5 elm,fern,lily,oak,rose",
    "kind": "lily,rose",
    "kinds": "elm,fern,oak",
    "below": "lily,rose",
    "upto": "elm,lily,oak,rose",
    "between": "elm,lily,oak,rose",
    "id": "rose",
    "name": "rose",
    "none": "",
    "prefix": "lily,rose",
    "exact": "rose",
    "tail": "rose",
    "span": "rose",
    "spread": "elm,lily,oak,rose",
}


def test_every_scan_finds_what_it_should(garden: Garden, runtime: str) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        await sow(client)
        assert await call(client, "scans") == COMMITTED
        found = dict(line.split(" ", 1) for line in await diary(guest, garden) if line != "init")
        assert found == (SCANS_0_11 if garden.is_0_11 else SCANS_1)

    play(check, garden.build(), runtime=runtime)


@pytest.mark.parametrize("garden", LATER)
def test_a_range_is_deleted(garden: Garden, runtime: str) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        await sow(client)
        assert await call(client, "fell_between", 1, 3, 5) == COMMITTED
        assert (await diary(guest, garden))[-1] == "felled 1"
        assert sorted(row[1] for row in await guest.sql("SELECT * FROM plant")) == ["elm", "fern", "oak", "rose"]

    play(check, garden.build(), runtime=runtime)


def test_counters_of_every_width(garden: Garden, runtime: str) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert await call(client, "count", 100) == COMMITTED
        for width in [*WIDTHS_0_11, *([] if garden.is_0_11 else ["I256", "U256"])]:
            rows = await guest.sql(f"SELECT * FROM {garden.table(f'Count{width}')}")
            assert sorted(rows) == [(n + 1, n) for n in range(100)]
        tickets = await guest.sql(f"SELECT * FROM {garden.table('Ticket')}")
        assert sorted(tickets) == [(n + 1, str(n)) for n in range(100)]

    play(check, garden.build(), runtime=runtime)


@pytest.mark.long
def test_many_rows_come_in_chunks_and_go_by_their_values() -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert await call(client, "mass", 20_000) == COMMITTED
        assert any(line["message"] == "20000 beds" for line in guest.lines())
        assert await call(client, "clear_beds") == COMMITTED
        assert (await diary(guest, OLDEST))[-1] == "gone 20000"
        assert await guest.sql("SELECT * FROM Bed") == []

    play(check, OLDEST.build())


def test_timers_run_once_and_often(garden: Garden) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert await call(client, "water_later", 3, 2_000) == COMMITTED
        await trio.sleep(1)
        assert await diary(guest, garden) == ["init"]
        await trio.sleep(2)
        caller = OWNER[::-1].hex() if garden.is_0_11 else "true"
        assert (await diary(guest, garden))[1:] == [f"watered 3 {caller} None"]
        assert await guest.sql(f"SELECT * FROM {garden.table('Watering')}") == []
        assert await call(client, "water_often", 4, 1_000) == COMMITTED
        await trio.sleep(3.5)
        assert (await diary(guest, garden)).count(f"watered 4 {caller} None") == 3
        assert await call(client, "stop_watering") == COMMITTED
        await trio.sleep(3)
        assert (await diary(guest, garden)).count(f"watered 4 {caller} None") == 3

    play(check, garden.build())


def test_who_comes_and_goes_is_seen(garden: Garden) -> None:
    async def check(guest: Guest) -> None:
        for visit in (1, 2):
            client = TestClient(guest.handle, ANN, int.from_bytes(ADDRESS, "little"))
            await client.wait_for(Connected, 1)
            everybody = {row[0]: row[1:] for row in await guest.sql(f"SELECT * FROM {garden.table('Visitor')}")}
            assert everybody[garden.who(ANN)] == (garden.who(ADDRESS), True, visit)
            await client.leave()
            everybody = {row[0]: row[1:] for row in await guest.sql(f"SELECT * FROM {garden.table('Visitor')}")}
            assert everybody[garden.who(ANN)] == (garden.who(ADDRESS), False, visit)

    play(check, garden.build())


def test_failures_leave_nothing_but_their_text(garden: Garden, runtime: str) -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert await call(client, "refuse", "no way") == (OutcomeKind.FAILED, garden.error("no way"))
        assert await call(client, "panic", "ouch") == (OutcomeKind.FAULT, FATAL)
        assert (await call(client, "twice"))[0] == OutcomeKind.FAILED
        assert await diary(guest, garden) == ["init"]
        panics = [line for line in guest.lines() if line["level"] == "Panic"]
        assert any("ouch" in line["message"] for line in panics)
        assert await call(client, "sow", "rose", 1, 1) == COMMITTED

    play(check, garden.build(), runtime=runtime)


def test_the_log_has_levels_and_spans(garden: Garden, runtime: str) -> None:
    async def check(guest: Guest) -> None:
        assert await call(TestClient(guest.handle, ANN), "speak") == COMMITTED
        lines = [(line["level"], line["message"]) for line in guest.lines()]
        spoken = [("Error", "an error"), ("Warn", "a warning"), ("Info", "an info"), ("Debug", "a debug")]
        assert [line for line in lines if line[1].split()[0] in ("a", "an")][-5:] == [*spoken, ("Trace", "a trace")]
        assert any(text.startswith('Timing span "speaking": ') for _, text in lines)

    play(check, garden.build(), runtime=runtime)


@pytest.mark.long
def test_a_reducer_that_does_not_end_is_stopped() -> None:
    keep_ticking()

    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert (await call(client, "spin"))[0] == OutcomeKind.OUT_OF_TIME
        assert await call(client, "sow", "rose", 1, 1) == COMMITTED

    play(check, OLDEST.build(), limits=Limits(call_ticks_max=20))


@pytest.mark.parametrize("garden", LATER)
def test_rules_show_everybody_their_own_rows(garden: Garden, runtime: str) -> None:
    async def check(guest: Guest) -> None:
        clients = {who: TestClient(guest.handle, who) for who in (ANN, BEN)}
        for who, client in clients.items():
            assert await call(client, "write", f"to {who[0]}") == COMMITTED
        for who, client in clients.items():
            applied = await client.subscribe(1, "SELECT * FROM letter")
            rows = [row for fragment in applied.rows for row in fragment.inserts]
            assert len(rows) == 1
            assert rows[0].startswith(who)

    play(check, garden.build(), runtime=runtime)


def test_an_update_keeps_rows_and_clients(garden: Garden) -> None:
    before, after = garden.build(), garden.build("v2")

    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        await sow(client)
        await client.subscribe(1, f"SELECT * FROM {garden.table('Plant')}")
        await guest.host.publish(OWNER, after, identity=guest.handle.identity, host_type="Wasm")
        assert await call(client, "rot", 1) == COMMITTED
        assert await guest.sql(f"SELECT * FROM {garden.table('Compost')}") == [(1,)]
        assert await call(client, "sow", "ivy", 4, 2) == COMMITTED
        rows = sorted(await guest.sql(f"SELECT * FROM {garden.table('Plant')}"))
        assert [row[:2] for row in rows] == [*((i + 1, p[0]) for i, p in enumerate(PLANTS)), (6, "ivy")]
        assert not client.messages(Closed)
        wanted = ["init", "update"] if garden.is_0_11 else ["init"]
        assert await diary(guest, garden) == wanted

    play(check, before, after)


@pytest.mark.long
def test_an_update_of_0_11_is_refused_by_its_reducer_and_seen_by_subscribers() -> None:
    garden = OLDEST
    before, bad, after = garden.build(), garden.build("badupdate"), garden.build("v2")

    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        await client.subscribe(1, "SELECT * FROM Diary")
        with pytest.raises(PublishFailed, match="this update is none"):
            await guest.host.publish(OWNER, bad, identity=guest.handle.identity, host_type="Wasm")
        assert await diary(guest, garden) == ["init"]
        assert await call(client, "sow", "ivy", 4, 2) == COMMITTED
        await guest.host.publish(OWNER, after, identity=guest.handle.identity, host_type="Wasm")
        (told,) = [each for each in await client.wait_for(Updated, 1) if isinstance(each, Updated)]
        assert told.event.reducer_name == "__update__"

    play(check, before, bad, after)


@pytest.mark.long
def test_a_garden_of_0_11_that_is_closed_lets_everybody_in() -> None:
    async def check(guest: Guest) -> None:
        client = TestClient(guest.handle, ANN)
        assert await call(client, "sow", "ivy", 4, 2) == COMMITTED
        assert await guest.sql("SELECT * FROM Visitor") == []

    play(check, OLDEST.build("refusing"))
