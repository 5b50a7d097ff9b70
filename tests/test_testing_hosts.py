"""Hosts for tests of modules: clients, calls, rows, time, restarts, what a test is told when something goes wrong."""

import datetime
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from stdb import Identity, ReducerContext, ScheduleAt, SenderError, Timestamp, UniqueViolation
from stdb.actors.refusals import ConnectRefused, DatabaseUnavailable, LifecycleCall, NoSuchFunction
from stdb.errors import HttpError, ModuleFault, QueryError, SchemaError, StdbError
from stdb.testing import AsyncTestHost, FakeHttp, HttpResponse, TestHost, VirtualClock
from stdb.testing.plugin import HostFactory
from tests import testing_market as market
from tests.testing_market import Alarm, Item, Kind, Note, Place, Rang, sold

HERE = Place(x=1, y=2)
NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture
def host(stdb_host: HostFactory) -> TestHost:
    return stdb_host(market)


# Calls


def test_a_call_is_typed_and_rows_are_objects_of_the_tests_own_classes(host: TestHost) -> None:
    alice = host.connect()
    alice.call(market.put, Kind.TOOL, place=HERE, until=NOON)
    item = host[Item].one()
    assert item == Item(owner=alice.identity, kind=Kind.TOOL, place=HERE, price=10, until=NOON).replace(id=1)  # type: ignore[attr-defined]
    assert item in host[Item]
    assert isinstance(item.place, Place)


def test_functions_are_called_by_name_as_well(host: TestHost) -> None:
    alice = host.connect()
    alice.call("put", Kind.FRUIT, HERE)
    alice.call("ring_bell", times=3)
    assert len(host.table("item")) == 1


def test_a_refusal_is_an_exception_with_the_modules_text(host: TestHost) -> None:
    with pytest.raises(SenderError, match=r"^too dear$"):
        host.connect().call(market.put, Kind.TOOL, HERE, 1001)
    assert len(host[Item]) == 0
    assert host.log[-1].message == "too dear"
    assert host.log[-1].level == "Error"


def test_a_module_that_breaks_shows_its_exception_and_line(host: TestHost) -> None:
    with pytest.raises(ModuleFault) as caught:
        host.connect().call(market.reprice, 7, 1)
    assert isinstance(caught.value.__cause__, KeyError)
    assert host.log[-1].level == "Panic"
    assert host.log[-1].filename == "testing_market.py"


def test_what_cannot_be_called_says_why(host: TestHost) -> None:
    alice = host.connect()
    with pytest.raises(KeyError, match=r"'vanish' is no reducer and no procedure of testing_market; it has .*buy, "):
        alice.call("vanish")
    with pytest.raises(NoSuchFunction):
        alice.call(market.close)
    with pytest.raises(LifecycleCall):
        alice.call("comes")
    with pytest.raises(TypeError, match=r"put\(.*missing a required argument: 'place'"):
        alice.call("put", Kind.TOOL)
    with pytest.raises(ValueError, match="price"):
        alice.call(market.put, Kind.TOOL, HERE, -1)


def test_the_owner_may_call_what_is_private(host: TestHost) -> None:
    owner = host.connect("owner")
    assert owner.identity == host.owner
    owner.call(market.put, Kind.TOOL, HERE)
    owner.call(market.close)
    assert len(host[Item]) == 0


def test_a_test_begins_with_the_rows_it_wants(host: TestHost) -> None:
    alice = host.connect()
    alice.subscribe(Item)
    stored = host.insert(Item(owner=alice.identity, kind=Kind.TOOL, place=HERE, price=9))
    assert (stored.id, alice.rows(Item)) == (1, [stored])
    host.insert(Note(text="a private table"))
    assert host[Note].get("a private table") is not None
    with pytest.raises(UniqueViolation):
        host.insert(Note(text="a private table", number=2))


def test_any_function_runs_as_a_transaction(host: TestHost) -> None:
    alice = host.connect()

    def restock(ctx: ReducerContext, count: int) -> Identity:
        for _ in range(count):
            item = ctx.db[Item].insert(Item(owner=ctx.sender, kind=Kind.FRUIT, place=HERE, price=1))
        ctx.db[sold].insert(item)
        assert ctx.db.item.id.find(item.id) == item
        return ctx.sender

    assert alice.transact(restock, 3) == alice.identity
    assert host.transact(restock, count=1) == host.owner
    assert (len(host[Item]), len(host[sold])) == (4, 2)

    def fail(ctx: ReducerContext) -> None:
        ctx.db[Item].clear()
        raise LookupError("no")

    with pytest.raises(LookupError, match=r"^no$"):
        host.transact(fail)
    assert len(host[Item]) == 4
    host.transact(market.wake, host.now)
    host.crash()
    assert len(host[Item]) == 4


# Clients


def test_names_are_identities_and_every_connection_is_its_own(host: TestHost) -> None:
    first, second, bob = host.connect("alice"), host.connect("alice"), host.connect("bob")
    assert first.identity == second.identity == host.identity("alice") != bob.identity
    first.disconnect()
    assert first.closed
    second.call(market.ring, 1)
    with pytest.raises(StdbError, match="alice is not connected any more"):
        first.call(market.ring, 1)


def test_claims_reach_the_module_and_choose_the_identity(host: TestHost) -> None:
    alice = host.connect("alice", claims={"role": "admin"})
    alice.call(market.note_claim, "role")
    alice.call(market.note_claim, "sub")
    assert {note.text for note in host[Note]} >= {"role=admin", "sub=alice"}
    assert alice.identity == host.identity("alice")
    other = host.connect("alice", claims={"iss": "https://accounts.example"})
    assert other.identity == Identity.derive("https://accounts.example", "alice")


def test_a_client_that_the_module_refuses_is_told_why(host: TestHost) -> None:
    with pytest.raises(ConnectRefused, match="you are banned"):
        host.connect("mallory", claims={"banned": True})


# Subscriptions and views


def test_subscriptions_fill_a_cache_and_call_back(host: TestHost) -> None:
    alice, bob = host.connect("alice"), host.connect("bob")
    alice.call(market.put, Kind.FRUIT, HERE)
    seen: list[Any] = []
    bob.on_insert(Item, lambda row: seen.append(("insert", row.id)))
    bob.on_update(Item, lambda old, new: seen.append(("update", old.price, new.price)))
    bob.on_delete(Item, lambda row: seen.append(("delete", row.id)))
    bob.subscribe(Item, sold)
    alice.call(market.reprice, 1, 20)
    alice.call(market.buy, 1)
    assert seen == [("insert", 1), ("update", 10, 20), ("delete", 1)]
    assert bob.rows(Item) == []
    assert [item.price for item in bob.rows(sold)] == [20]
    update = bob.updates[-1]
    assert (update.reducer, update.caller, update.is_mine) == ("buy", alice.identity, False)
    assert update.timestamp == host.now
    assert update.deleted(Item) == update.inserted(sold)
    assert [(old.price, new.price) for old, new in bob.updates[0].updated(Item)] == [(10, 20)]


def test_callbacks_run_in_the_tests_thread_and_may_call(host: TestHost) -> None:
    alice = host.connect()
    alice.subscribe(Item)
    alice.on_insert(Item, lambda row: alice.call(market.buy, row.id))
    alice.call(market.put, Kind.FRUIT, HERE)
    assert len(host[sold]) == 1


def test_two_subscriptions_to_a_row_hold_it_until_both_end(host: TestHost) -> None:
    alice = host.connect()
    alice.call(market.put, Kind.FRUIT, HERE)
    whole = alice.subscribe(Item)
    part = alice.subscribe("SELECT * FROM item WHERE price = 10")
    alice.unsubscribe(whole)
    assert len(alice.rows(Item)) == 1
    alice.unsubscribe(part)
    assert alice.rows(Item) == []


def test_events_are_told_and_not_kept(host: TestHost) -> None:
    alice = host.connect()
    rung: list[Rang] = []
    alice.on_insert(Rang, rung.append)
    alice.subscribe(Rang)
    alice.call(market.ring, 2)
    assert rung == [Rang(who=alice.identity, times=2)] == alice.updates[-1].inserted(Rang)
    assert alice.rows(Rang) == []
    assert len(host[Rang]) == 0


def test_views_have_rows_for_each_client(host: TestHost) -> None:
    alice, bob = host.connect("alice"), host.connect("bob")
    alice.subscribe(market.mine, market.first)
    alice.call(market.put, Kind.FRUIT, HERE)
    bob.call(market.put, Kind.TOOL, HERE)
    assert [item.owner for item in alice.rows(market.mine)] == [alice.identity]
    assert [item.id for item in alice.rows(market.first)] == [1]
    assert [item.owner for item in bob.query(market.mine)] == [bob.identity]
    assert [item.kind for item in bob.query(market.fruit)] == [Kind.FRUIT]
    with pytest.raises(KeyError, match="mine is a view"):
        host[market.mine]


def test_queries_are_those_of_the_client(host: TestHost) -> None:
    alice = host.connect()
    alice.call(market.put, Kind.FRUIT, HERE, 5)
    assert alice.query("SELECT * FROM item WHERE price < 6") == host[Item].all()
    with pytest.raises(QueryError):
        alice.query(Note)
    with pytest.raises(QueryError):
        alice.subscribe("SELECT * FROM nothing")
    assert alice.sql("SELECT price FROM item") == [{"price": 5}]
    assert host.connect("owner").sql("UPDATE item SET price = 6") == []
    assert host[Item].one().price == 6


def test_tables_are_looked_into_by_condition_and_key(host: TestHost) -> None:
    alice = host.connect()
    for price in (3, 1, 2):
        alice.call(market.put, Kind.FRUIT, HERE, price)
    assert [item.price for item in host[Item].filter(Item.price >= 2, order_by=Item.price)] == [2, 3]
    assert host[Item].get(2) == host[Item][2]
    assert host[Item].get(9) is None
    assert "item" in host[Item].explain(Item.owner == alice.identity)
    with pytest.raises(AssertionError, match="item has 3 rows"):
        host[Item].one()
    with pytest.raises(KeyError, match="is no table and no view of testing_market"):
        host[Place]


# Time, chance, other servers


def test_time_stands_still_between_calls_and_schedules_run_when_they_are_due(host: TestHost) -> None:
    alice = host.connect()
    alice.call(market.set_alarm, 60, again=False)
    begun = host.now
    host.advance(59.999999)
    assert len(host[Alarm]) == 1
    host.advance(0.000001)
    assert len(host[Alarm]) == 0
    due = begun + datetime.timedelta(seconds=60)
    assert host[Note].get(f"alarm at {due}") is not None
    assert host.now == due


def test_what_comes_again_runs_at_each_of_its_times(host: TestHost) -> None:
    alice = host.connect()
    alice.call(market.set_alarm, 3600, again=True)
    begun = host.now
    host.advance(datetime.timedelta(days=1))
    alarms = sorted(note.text for note in host[Note] if note.text.startswith("alarm"))
    assert alarms == [f"alarm at {begun + datetime.timedelta(hours=hour)}" for hour in range(1, 25)]
    assert host[Alarm].one().scheduled_at == ScheduleAt.every(datetime.timedelta(hours=1))


def test_time_is_exact_however_much_of_it_other_tests_have_used(stdb_host: HostFactory) -> None:
    for _ in range(2):
        with TestHost(market) as host:
            host.connect().call(market.nap, 4_000_000_000)
            host.advance(1)
    host = stdb_host(market)
    host.connect().call(market.set_alarm, 1, again=False)
    due = host.now + datetime.timedelta(seconds=1)
    host.advance(1)
    assert host[Note].get(f"alarm at {due}") is not None


def test_no_two_calls_begin_at_the_same_time(host: TestHost) -> None:
    alice = host.connect()
    alice.call(market.roll, "one")
    alice.call(market.roll, "two")
    assert host[Note]["one"].number != host[Note]["two"].number


def test_chance_is_the_same_every_time_and_another_with_another_seed(stdb_host: HostFactory) -> None:
    def rolled(seed: int) -> tuple[int, int]:
        host = stdb_host(market, seed=seed)
        host.connect().call(market.roll, "x")
        return host[Note]["opened"].number, host[Note]["x"].number

    assert rolled(0) == rolled(0) != rolled(1) == rolled(1)


def test_time_begins_when_the_test_says(stdb_host: HostFactory) -> None:
    assert stdb_host(market, start=NOON).now == Timestamp.from_datetime(NOON)


def test_procedures_return_typed_values_and_time_passes_for_them(host: TestHost) -> None:
    before = host.now
    woke = host.connect().call(market.nap, 30)
    assert woke == Place(x=30, y=-1)
    assert (host.now - before).micros in range(30_000_000, 30_000_010)
    assert sum(note.text.startswith("woke at") for note in host[Note]) == 1


def test_a_procedure_can_be_left_waiting(host: TestHost) -> None:
    outcome = host.connect().start(market.nap, 30)
    host.advance(29)
    assert not outcome.is_done
    host.advance(1)
    assert outcome.is_done
    assert outcome.result() == Place(x=30, y=-1)


def test_other_servers_answer_what_the_test_wrote_down(stdb_host: HostFactory) -> None:
    host = stdb_host(market, http={"https://rates.example/today": HttpResponse(200, (), b"7")})
    alice = host.connect()
    assert alice.call(market.rate, 6) == 42
    assert isinstance(host.http, FakeHttp)
    assert [request.url for request in host.http.requests] == ["https://rates.example/today"]
    host.http.answers["https://rates.example/today"] = HttpResponse(503)
    with pytest.raises(SenderError, match=r"^no rate: 503$"):
        alice.call(market.rate, 6)
    host.http.answers["https://rates.example/today"] = HttpError("unreachable")
    with pytest.raises(ModuleFault) as caught:
        alice.call(market.rate, 6)
    assert isinstance(caught.value.__cause__, HttpError)


def test_routes_answer(host: TestHost) -> None:
    response = host.request("POST", "/echo", body=b"hello")
    assert (response.status, response.body) == (200, b"HELLO")


def test_what_the_module_says_is_captured(host: TestHost) -> None:
    [line] = host.log
    assert (line.level, line.message, line.function) == ("Info", "the market is open", "opened")


# Restarts


def test_a_restart_keeps_the_rows_and_ends_the_connections(host: TestHost) -> None:
    alice = host.connect()
    alice.subscribe(Item)
    alice.call(market.put, Kind.FRUIT, HERE)
    waiting = alice.start(market.nap, 30)
    host.restart()
    assert alice.closed
    assert alice.rows(Item) == []
    with pytest.raises(DatabaseUnavailable):
        waiting.result()
    assert host[Item].one().kind is Kind.FRUIT
    host.connect().call(market.buy, 1)
    assert len(host[sold]) == 1


def test_a_crash_may_lose_what_was_not_on_the_disk(host: TestHost) -> None:
    alice = host.connect()
    for price in (1, 2, 3):
        alice.call(market.put, Kind.FRUIT, HERE, price)
    host.crash(losing=2)
    assert [item.price for item in host[Item]] == [1]
    with pytest.raises(ValueError, match="losing=1000"):
        host.crash(losing=1000)
    host.crash()
    assert [item.price for item in host[Item]] == [1]


def test_what_is_due_while_the_host_is_down_runs_after_it(host: TestHost) -> None:
    host.connect().call(market.set_alarm, 60, again=False)
    host.crash()
    host.advance(61)
    assert any(note.text.startswith("alarm") for note in host[Note])


# Programs


def test_a_program_is_given_as_a_path_or_packed_too(stdb_host: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "counter.py"
    source = (
        "from stdb import *\n@table(public=True)\nclass C:\n    n: u64 = primary_key()\n"
        "@reducer\ndef add(ctx: ReducerContext, n: u64) -> None:\n    ctx.db[C].insert(C(n=n))\n"
    )
    path.write_text(source)
    host = stdb_host(path)
    host.connect().call("add", 3)
    assert [row.n for row in host.table("c")] == [3]
    path.write_text(
        source + "@reducer\ndef more(ctx: ReducerContext) -> None:\n    ctx.db[C].insert(C(n=len(ctx.db[C])))\n"
    )
    host.publish(path)
    host.connect().call("more")
    assert [row.n for row in host.table("c").all()] == [1, 3]


def test_a_program_that_does_not_load_is_refused_with_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("from stdb import *\n@reducer\ndef f(ctx: ReducerContext, x) -> None: ...\n")
    with pytest.raises(StdbError, match=r"broken.py:2: f\(x\): has no type"):
        TestHost(path)
    with pytest.raises(SchemaError, match="cannot read the module"):
        TestHost(tmp_path / "nowhere.py")


def test_state_at_module_level_is_not_carried_from_test_to_test(stdb_host: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "stateful.py"
    path.write_text(
        "from stdb import *\nseen: list[int] = []\n@table\nclass C:\n    n: u64 = primary_key()\n"
        "@reducer\ndef add(ctx: ReducerContext) -> None:\n    seen.append(1)\n    ctx.db[C].insert(C(n=len(seen)))\n"
    )
    for _ in range(2):
        with TestHost(path) as host:
            host.connect().call("add")
            assert [row.n for row in host.table("c")] == [1]
            assert any("module-level state `seen`" in line.message for line in host.log)


def test_sequences_of_a_new_database_begin_at_one(host: TestHost) -> None:
    host.connect().call(market.put, Kind.FRUIT, HERE)
    assert host[Item].one().id == 1


def test_hosts_know_nothing_of_each_other(stdb_host: HostFactory) -> None:
    one, two = stdb_host(market), stdb_host(market)
    one.connect().call(market.put, Kind.FRUIT, HERE)
    assert len(two[Item]) == 0
    one.advance(100)
    assert two.now < one.now


def test_a_closed_host_says_so() -> None:
    with TestHost(market) as host:
        pass
    with pytest.raises(StdbError, match="this host was closed"):
        host.connect()
    host.close()


def test_a_test_costs_milliseconds() -> None:
    def simple() -> float:
        started = time.process_time()
        with TestHost(market) as host:
            host.connect().call(market.put, Kind.FRUIT, HERE)
            assert len(host[Item]) == 1
        return time.process_time() - started

    simple()
    assert min(simple() for _ in range(20)) < 0.05


# Keeping


def test_a_saved_database_is_a_data_directory_that_a_server_opens(host: TestHost, tmp_path: Path) -> None:
    alice = host.connect()
    alice.call(market.put, Kind.FRUIT, HERE)
    with pytest.raises(SenderError):
        alice.call(market.put, Kind.FRUIT, HERE, 5000)
    path = host.save(tmp_path / "kept")
    command = [sys.executable, "-c", _SERVE, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parent.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "10", "too", "dear"]
    with pytest.raises(StdbError, match="is not empty"):
        host.save(tmp_path / "kept")


_SERVE = """
import functools, json, sys, trio
from stdb.actors.host import Host, HostSettings
from stdb.actors.sink import Client
from stdb.net.tokens import Tokens, load_or_make_key, load_or_make_operator
from stdb.server import load_program
from stdb.storage.data_directory import DataDirectory
from stdb.storage.server_storage import ServerStorage

async def main():
    with DataDirectory(sys.argv[1]) as directory:
        operator = load_or_make_operator(directory, Tokens(load_or_make_key(directory)))
        storage = ServerStorage(directory, lambda: 1)
        async with Host.open(storage, load_program, HostSettings(operator=operator.identity)) as host:
            handle = host.database(host.control.resolve("test"))
            assert handle.owner == operator.identity
            client = Client(operator.identity, bytes(15) + b"1", operator.payload)
            for row in (await handle.sql(client, "SELECT id, price FROM item")).rows:
                print(*row)
            lines = [json.loads(line) for chunk in handle.log.tail(None) for line in chunk.splitlines()]
            print(*(line["message"] for line in lines if line["level"] == "Error"))
        storage.close()

trio.run(main)
"""


# Async tests


def test_async_tests_do_the_same_in_their_own_run() -> None:
    async def test() -> None:
        async with AsyncTestHost.open(market) as host:
            alice, bob = await host.connect("alice"), await host.connect("bob")
            await bob.subscribe(Item)
            await alice.call(market.put, Kind.FRUIT, HERE)
            assert len(bob.rows(Item)) == len(bob.updates) == 1
            await alice.call(market.set_alarm, 60, again=False)
            await host.advance(60)
            assert len(host[Alarm]) == 0
            assert await alice.call(market.nap, 5) == Place(x=5, y=-1)
            with pytest.raises(SenderError, match="too dear"):
                await alice.call(market.put, Kind.FRUIT, HERE, 5000)
            await host.crash()
            assert alice.closed
            assert [item.kind for item in await (await host.connect()).query(Item)] == [Kind.FRUIT]

    trio.run(test, clock=VirtualClock())


def test_async_tests_may_have_a_clock_of_their_own() -> None:
    async def test() -> None:
        async with AsyncTestHost.open(market) as host, await host.connect() as alice:
            await alice.call(market.set_alarm, 60, again=False)
            await trio.sleep(59)
            assert len(host[Alarm]) == 1
            await host.advance(1)
            assert len(host[Alarm]) == 0
            assert await alice.call(market.nap, 30) == Place(x=30, y=-1)

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_an_async_test_raises_comes_out_as_it_is() -> None:
    async def test() -> None:
        async with AsyncTestHost.open(market):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        trio.run(test, clock=VirtualClock())


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": VirtualClock()})])
async def test_tests_run_by_a_plugin_for_async_functions_use_it(anyio_backend: object) -> None:
    async with AsyncTestHost.open(market) as host:
        await (await host.connect()).call(market.ring, 1)
