"""DatabaseActor: calls, connections, subscriptions, durability, as clients see them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from stdb.actors.attachment import QUEUED_REQUESTS_MAX
from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host, HostSettings
from stdb.actors.refusals import BadArguments, ConnectRefused, LifecycleCall, NoSuchFunction
from stdb.actors.requests import (
    CallProcedure,
    CallReducer,
    OneOffQuery,
    Subscribe,
    SubscribeBatch,
    SubscriptionKind,
    Unsubscribe,
)
from stdb.actors.sink import Client, OutcomeKind
from stdb.datastore.delta import Delta
from stdb.testing.hosts import TestClient, identity, open_host
from stdb.testing.sinks import (
    Applied,
    BatchApplied,
    Closed,
    Connected,
    OneOff,
    ProcedureFailed,
    Result,
    SubscriptionFailed,
    Unsubscribed,
    Updated,
)
from stdb.testing.storage import MemoryStorage
from tests.actors_chat import chat

OWNER = identity(99)


def text(value: str) -> bytes:
    """Return a string as BSATN."""
    data = value.encode()
    return len(data).to_bytes(4, "little") + data


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test in virtual time; a test that hangs fails instead."""

    async def within() -> None:
        with trio.fail_after(3600):
            await test()

    trio.run(within, clock=trio.testing.MockClock(autojump_threshold=0))


@asynccontextmanager
async def chat_host(
    storage: MemoryStorage | None = None, settings: HostSettings | None = None
) -> AsyncIterator[tuple[Host, DatabaseHandle]]:
    async with open_host({b"chat": chat, b"chat 2": lambda: chat(version="2")}, storage, settings) as host:
        published = await host.publish(OWNER, b"chat", name="chat")
        yield host, host.database(published.identity)


def in_chat(test: Callable[[DatabaseHandle], Awaitable[None]]) -> Callable[[], None]:
    def wrapped() -> None:
        async def main() -> None:
            async with chat_host() as (_, handle):
                await test(handle)

        run(main)

    wrapped.__name__ = test.__name__
    return wrapped


def rows_of(result: Result | Updated) -> list[tuple[str, int, int]]:
    """Return per fragment: table, count of inserts, count of deletes."""
    if result.update is None:
        return []
    fragments = [fragment for each in result.update.sets for fragment in each.fragments]
    return [(fragment.table_name, len(fragment.inserts), len(fragment.deletes)) for fragment in fragments]


def lines(handle: DatabaseHandle) -> str:
    return b"".join(handle.log.tail(None)).decode()


# Calls


@in_chat
async def test_the_first_message_names_the_client(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    assert await ann.sink.next() == Connected(identity(1), ann.client.connection_id, "token")


@in_chat
async def test_a_call_that_commits_answers_its_caller_and_tells_subscribers(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await bob.subscribe(7, "SELECT * FROM message")
    result = await ann.call("say", text("hello"))
    assert result.outcome.kind == OutcomeKind.COMMITTED
    assert result.update is None, "the caller subscribes to nothing"
    (update,) = bob.messages(Updated)
    assert isinstance(update, Updated)
    assert rows_of(update) == [("message", 1, 0)]
    assert update.event.reducer_name == "say"
    assert update.event.caller == identity(1)
    assert update.event.caller_connection_id == ann.client.connection_id
    assert update.event.request_id == result.request_id


@in_chat
async def test_the_callers_rows_are_in_its_result_and_in_no_update(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(1, "SELECT * FROM message")
    result = await ann.call("say", text("hello"))
    assert rows_of(result) == [("message", 1, 0)]
    assert ann.messages(Updated) == []


@in_chat
async def test_another_connection_of_the_caller_is_no_caller(handle: DatabaseHandle) -> None:
    ann, phone = TestClient(handle, 1), TestClient(handle, 1)
    await phone.subscribe(1, "SELECT * FROM message")
    await ann.call("say", text("hello"))
    assert len(phone.messages(Updated)) == 1


@in_chat
async def test_nobody_hears_of_what_does_not_concern_it(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await bob.subscribe(7, "SELECT * FROM message")
    before = len(bob.sink.received)
    await ann.call("note", text("x"))
    await ann.call("nothing")
    await bob.call("nothing")
    assert [type(message) for message in bob.sink.received[before:]] == [Result]


@in_chat
async def test_a_no_op_takes_no_offset(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    first = await ann.call("say", text("one"))
    nothing = await ann.call("nothing")
    second = await ann.call("say", text("two"))
    assert nothing.event.needs == first.event.needs
    assert second.event.needs == first.event.needs + 1


@pytest.mark.parametrize(("how", "kind", "told"), [
    ("refuse", OutcomeKind.FAILED, "refused"),
    ("break", OutcomeKind.FAULT, "The instance encountered a fatal error."),
])  # fmt: skip
def test_a_failed_call_leaves_nothing_and_only_the_caller_hears(how: str, kind: int, told: str) -> None:
    async def main() -> None:
        async with chat_host() as (_, handle):
            ann, bob = TestClient(handle, 1), TestClient(handle, 2)
            await bob.subscribe(7, "SELECT * FROM events")
            count = len(bob.sink.received)
            result = await ann.call("write_and_fail", text(how))
            assert (result.outcome.kind, result.outcome.text) == (kind, told)
            assert len(bob.sink.received) == count
            applied = await ann.subscribe(1, "SELECT * FROM events")
            assert [len(fragment.inserts) for fragment in applied.rows] == [1], "only what init wrote"

    run(main)


@in_chat
async def test_a_fault_is_explained_to_the_owner_alone(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.call("write_and_fail", text("boom"))
    assert "ZeroDivisionError: boom" in lines(handle)
    assert '"level":"Panic"' in lines(handle)


@in_chat
async def test_without_notify_success_the_caller_is_like_the_others(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(1, "SELECT * FROM message")
    count = len(ann.sink.received)
    ann.call_nowait("note", text("unseen"), notify_success=False)
    ann.call_nowait("write_and_fail", text("refuse"), notify_success=False)
    ann.call_nowait("say", text("seen"), notify_success=False)
    await ann.call("nothing")
    assert [type(message) for message in ann.sink.received[count:]] == [Updated, Result]


@in_chat
async def test_calls_that_cannot_run_are_answered_whatever_the_flag_in_request_order(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    calls = [("nope", b""), ("init", b""), ("keep", b""), ("say", b"\5\0\0\0ab"), ("nothing", b"")]
    for name, args in calls:
        ann.call_nowait(name, args, notify_success=name == "nothing")
    results = (await ann.sink.wait_count(6))[1:]
    texts = [message.outcome.text for message in results if isinstance(message, Result)]
    assert texts[:3] == ["no such reducer", "can't directly call special Init lifecycle reducer", "no such reducer"]
    assert texts[3].startswith("invalid arguments for reducer say: ")
    assert texts[4] == ""
    refused = results[3]
    assert isinstance(refused, Result)
    assert refused.event.request_id == 0
    assert refused.event.args == b""
    assert refused.event.reducer_name == "say"
    assert "invalid arguments for function say: " in refused.outcome.text_chain
    assert 'External attempt to call nonexistent reducer \\"nope\\" failed. Have you run `spacetime generate`' in lines(
        handle
    )
    assert 'call reducer \\"say\\" failed, invalid arguments.\\nThis is likely due' in lines(handle)


@in_chat
async def test_the_owner_may_call_private_reducers(handle: DatabaseHandle) -> None:
    owner = TestClient(handle, OWNER)
    args = (5).to_bytes(4, "little") + text("x")
    assert (await owner.call("keep", args)).outcome.kind == OutcomeKind.COMMITTED


@pytest.mark.parametrize("arguments", ['["hello"]', '{"text":"hello"}'])
def test_arguments_in_json_are_positional_or_by_name(arguments: str) -> None:
    async def main() -> None:
        async with chat_host() as (_, handle):
            ann, bob = TestClient(handle, 1), TestClient(handle, 2)
            await bob.subscribe(1, "SELECT * FROM message")
            result = await ann.call("say", arguments)
            assert result.outcome.kind == OutcomeKind.COMMITTED
            assert result.event.args_json == arguments
            assert result.event.args == text("hello")
            assert len(bob.messages(Updated)) == 1

    run(main)


@pytest.mark.parametrize("arguments", ["", "[1]", "[]", "nonsense", '{"no":1}', '["a","b"]'])
def test_json_arguments_that_do_not_fit_are_refused(arguments: str) -> None:
    async def main() -> None:
        async with chat_host() as (_, handle):
            result = await TestClient(handle, 1).call("say", arguments)
            assert result.outcome.kind == OutcomeKind.NOT_RUN
            assert result.outcome.text.startswith("invalid arguments for reducer say: ")

    run(main)


@in_chat
async def test_procedures_are_answered_with_an_error(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    call = CallProcedure(3, "p", b"")
    ann.submit(call)
    await ann.sink.wait_count(2)
    assert ann.sink.received[1] == ProcedureFailed(call, "No such procedure")


@in_chat
async def test_rows_of_event_tables_are_told_and_not_kept(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.subscribe(1, "SELECT * FROM flash")
    assert rows_of(await ann.call("flash", text("!"))) == [("flash", 1, 0)]
    assert (await ann.subscribe(2, "SELECT * FROM flash")).rows == []


# Subscriptions


@in_chat
async def test_every_kind_of_subscription_is_answered(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.call("say", text("x"))
    query = "SELECT * FROM message"
    requests: list[Any] = [
        Subscribe(SubscriptionKind.LEGACY, 1, 0, (query,)),
        Subscribe(SubscriptionKind.SINGLE, 2, 1, (query,)),
        Subscribe(SubscriptionKind.MULTI, 3, 2, (query, "SELECT * FROM online")),
        SubscribeBatch(4, ((5, (query,)), (6, ("SELECT * FROM nope",)), (5, ()))),
        OneOffQuery(5, query),
        OneOffQuery(6, "SELECT * FROM nope"),
        Unsubscribe(SubscriptionKind.SINGLE, 7, 1),
        Unsubscribe(SubscriptionKind.MULTI, 8, 2),
        Unsubscribe(SubscriptionKind.SET, 9, 5),
        Unsubscribe(SubscriptionKind.SET, 10, 77),
        Subscribe(SubscriptionKind.SET, 11, 12, ("SELECT",)),
    ]
    start = len(ann.sink.received)
    ann.submit(*requests)
    answers = (await ann.sink.wait_count(start + len(requests)))[start:]
    kinds: list[type] = [Applied, Applied, Applied, BatchApplied, OneOff, OneOff, *[Unsubscribed] * 3]
    assert [type(answer) for answer in answers] == [*kinds, SubscriptionFailed, SubscriptionFailed]
    assert [answer.request for answer in answers] == requests  # type: ignore[union-attr]
    batch = answers[3]
    assert isinstance(batch, BatchApplied)
    assert [isinstance(outcome, str) for _, outcome in batch.results] == [False, True, True]
    assert isinstance(answers[5], OneOff)
    assert isinstance(answers[5].result, str)


@in_chat
async def test_no_update_follows_the_answer_to_an_unsubscription(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await bob.subscribe(1, "SELECT * FROM message")
    bob.submit(Unsubscribe(SubscriptionKind.SET, 9, 1))
    await bob.call("nothing")
    await ann.call("say", text("x"))
    assert bob.messages(Updated) == []


# Connections


@in_chat
async def test_coming_and_going_is_one_transaction_each(handle: DatabaseHandle) -> None:
    watcher = TestClient(handle, OWNER)
    await watcher.subscribe(1, "SELECT * FROM online", "SELECT * FROM st_client")
    ann = TestClient(handle, 1)
    await ann.sink.next()
    await ann.leave()
    await watcher.call("nothing")
    updates = watcher.messages(Updated)
    told = [(update.event.reducer_name, sorted(rows_of(update))) for update in updates]  # type: ignore[attr-defined,arg-type]
    assert told == [
        ("connected", [("online", 1, 0), ("st_client", 1, 0)]),
        ("disconnected", [("online", 0, 1), ("st_client", 0, 1)]),
    ]


@in_chat
async def test_a_refused_client_is_dropped_without_a_trace(handle: DatabaseHandle) -> None:
    watcher = TestClient(handle, OWNER)
    await watcher.subscribe(1, "SELECT * FROM online", "SELECT * FROM st_client")
    sink_of = TestClient(handle, 1)
    # The credentials say who is banned; they are part of the client.
    banned = TestClient.__new__(TestClient)
    banned.sink = type(sink_of.sink)()
    client = Client(identity(66), bytes(15) + b"\1", '{"sub":"banned"}')
    banned.attachment = handle.attach(client, banned.sink, "token")
    banned.attachment.submit_nowait([CallReducer(1, "say", text("let me in"))])
    await banned.attachment.wait_detached()
    assert banned.sink.received == [Closed(None, "you are banned")]
    await watcher.call("nothing")
    assert len(watcher.messages(Updated)) == 1, "of the other one"
    assert "you are banned" in lines(handle)


@in_chat
async def test_a_failing_disconnect_still_removes_the_client_and_everyone_sees_it(handle: DatabaseHandle) -> None:
    watcher = TestClient(handle, OWNER)
    ann = TestClient(handle, 1)
    await ann.call("note", text("refuse to disconnect"))
    await watcher.subscribe(1, "SELECT * FROM st_client", "SELECT * FROM online")
    await ann.leave()
    await watcher.call("nothing")
    (update,) = watcher.messages(Updated)
    assert isinstance(update, Updated)
    assert rows_of(update) == [("st_client", 0, 1)]
    assert "not now" in lines(handle)


@in_chat
async def test_detaching_twice_disconnects_once(handle: DatabaseHandle) -> None:
    watcher = TestClient(handle, OWNER)
    ann = TestClient(handle, 1)
    await ann.sink.next()
    await watcher.subscribe(1, "SELECT * FROM st_client")
    ann.attachment.detach_nowait()
    await ann.leave()
    ann.submit(CallReducer(1, "say", text("too late")))
    await watcher.call("nothing")
    assert len(watcher.messages(Updated)) == 1


@in_chat
async def test_requests_before_leaving_are_served(handle: DatabaseHandle) -> None:
    watcher = TestClient(handle, 2)
    await watcher.subscribe(1, "SELECT * FROM message")
    ann = TestClient(handle, 1)
    ann.call_nowait("say", text("last words"))
    await ann.leave()
    await watcher.call("nothing")
    assert len(watcher.messages(Updated)) == 1


@in_chat
async def test_an_equal_pair_cuts_the_older_connection_whose_disconnect_comes_first(handle: DatabaseHandle) -> None:
    watcher = TestClient(handle, OWNER)
    older = TestClient(handle, 1, 5)
    await older.subscribe(1, "SELECT * FROM message")
    await watcher.subscribe(1, "SELECT * FROM st_client")
    newer = TestClient(handle, 1, 5)
    await older.attachment.wait_detached()
    assert isinstance(older.sink.closed, Closed)
    assert older.sink.closed.code is None
    await newer.call("nothing")
    await watcher.call("nothing")
    names = [update.event.reducer_name for update in watcher.messages(Updated)]  # type: ignore[attr-defined]
    assert names == ["disconnected", "connected"]
    await older.leave()
    assert (await newer.call("nothing")).outcome.kind == OutcomeKind.COMMITTED


@in_chat
async def test_two_identities_with_one_connection_id_live_side_by_side(handle: DatabaseHandle) -> None:
    owner = TestClient(handle, OWNER)
    ann, bob = TestClient(handle, 1, 5), TestClient(handle, 2, 5)
    await ann.call("nothing")
    await bob.call("nothing")
    credentials = await owner.subscribe(1, "SELECT * FROM st_connection_credentials", "SELECT * FROM st_client")
    assert [len(fragment.inserts) for fragment in credentials.rows] == [2, 3]
    await ann.leave()
    assert (await bob.call("nothing")).outcome.kind == OutcomeKind.COMMITTED
    await bob.leave()
    after = await owner.subscribe(2, "SELECT * FROM st_connection_credentials", "SELECT * FROM st_client")
    assert [len(fragment.inserts) for fragment in after.rows] == [1, 1]


@in_chat
async def test_a_held_session_refuses_the_newcomer_and_cuts_the_holder(handle: DatabaseHandle) -> None:
    session = b"s" * 16
    holder = TestClient(handle, 1, session_id=session)
    await holder.call("nothing")
    second = TestClient(handle, 1, session_id=session)
    await holder.attachment.wait_detached()
    assert second.sink.received == [Closed(4000, "session busy")]
    assert holder.sink.closed == Closed(None, "another connection took its place")
    retry = TestClient(handle, 1, session_id=session)
    assert (await retry.call("nothing")).outcome.kind == OutcomeKind.COMMITTED
    other = TestClient(handle, 2, session_id=session)
    assert (await other.call("nothing")).outcome.kind == OutcomeKind.COMMITTED


# HTTP


@in_chat
async def test_an_http_call_connects_calls_and_disconnects(handle: DatabaseHandle) -> None:
    watcher = TestClient(handle, OWNER)
    await watcher.subscribe(1, "SELECT * FROM message", "SELECT * FROM st_client")
    result = await handle.call(Client(identity(3), b"c" * 16, "{}"), "say", '["hi"]')
    assert result.outcome.kind == OutcomeKind.COMMITTED
    await watcher.call("nothing")
    names = [update.event.reducer_name for update in watcher.messages(Updated)]  # type: ignore[attr-defined]
    assert names == ["connected", "say", "disconnected"]
    failed = await handle.call(Client(identity(3), b"c" * 16, "{}"), "say", '[""]')
    assert failed.outcome == (OutcomeKind.FAILED, "say something", "say something")


@pytest.mark.parametrize(("reducer", "args", "error", "told"), [
    ("nope", "[]", NoSuchFunction, "No such procedure"),
    ("nope", "not even JSON", NoSuchFunction, "No such procedure"),
    ("keep", "[1,\"x\"]", NoSuchFunction, "No such procedure"),
    ("connected", "[]", LifecycleCall, "can't directly call special OnConnect lifecycle reducer"),
    ("say", "[1]", BadArguments, "invalid arguments for reducer say: "),
    ("say", "", BadArguments, "invalid arguments for reducer say: "),
])  # fmt: skip
def test_an_http_call_that_cannot_run_says_why(reducer: str, args: str, error: type[Exception], told: str) -> None:
    async def main() -> None:
        async with chat_host() as (_, handle):
            with pytest.raises(error) as caught:
                await handle.call(Client(identity(3), b"c" * 16, "{}"), reducer, args)
            assert str(caught.value).startswith(told)
            assert handle.client_count == 0

    run(main)


@in_chat
async def test_a_refused_http_caller_learns_why_before_anything_else(handle: DatabaseHandle) -> None:
    with pytest.raises(ConnectRefused, match=r"^you are banned$"):
        await handle.call(Client(identity(3), b"c" * 16, '{"sub":"banned"}'), "nope", "[]")


# Durability


def test_confirmed_clients_see_nothing_before_it_is_durable() -> None:
    async def main() -> None:
        storage = MemoryStorage(delayed=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_sync_always, storage, stop := trio.Event())
            async with chat_host(storage) as (_, handle):
                ann, bob = TestClient(handle, 1, confirmed=True), TestClient(handle, 2)
                await ann.subscribe(1, "SELECT * FROM message")
                await bob.subscribe(1, "SELECT * FROM message")
                stop.set()
                await trio.testing.wait_all_tasks_blocked()
                result = await bob.call("say", text("x"))
                assert result.event.needs > storage.logs[handle.identity].durable
                mine = ann.call_nowait("nothing")
                ann.submit(OneOffQuery(50, "SELECT * FROM message"))
                await trio.testing.wait_all_tasks_blocked()
                count = len(ann.sink.received)
                assert ann.messages(Updated) == []
                storage.sync()
                await trio.testing.wait_all_tasks_blocked()
                told = [type(message) for message in ann.sink.received[count:]]
                assert told == [Updated, Result, OneOff]
                assert ann.sink.received[count + 1].request_id == mine  # type: ignore[union-attr]
                nursery.start_soon(_sync_always, storage, trio.Event())
            nursery.cancel_scope.cancel()

    run(main)


def test_an_http_call_answers_once_durable_unless_told_otherwise() -> None:
    async def main() -> None:
        storage = MemoryStorage(delayed=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_sync_always, storage, stop := trio.Event())
            async with chat_host(storage) as (_, handle):
                stop.set()
                await trio.testing.wait_all_tasks_blocked()
                client = Client(identity(3), b"c" * 16, "{}")
                await handle.call(client, "say", '["at once"]', confirmed=False)
                with trio.move_on_after(60) as scope:
                    await handle.call(client, "say", '["late"]')
                assert scope.cancelled_caught
                async with trio.open_nursery() as inner:
                    inner.start_soon(handle.call, client, "say", '["later"]')
                    await trio.testing.wait_all_tasks_blocked()
                    storage.sync()
                nursery.start_soon(_sync_always, storage, trio.Event())
            nursery.cancel_scope.cancel()

    run(main)


def test_a_log_is_promised_more_only_while_more_waits() -> None:
    async def main() -> None:
        storage, appended = MemoryStorage(), []
        async with chat_host(storage) as (_, handle):
            ann = TestClient(handle, 1, confirmed=True)
            await ann.sink.next()
            log = storage.logs[handle.identity]
            append = log.append_nowait

            def noted(records: Sequence[bytes], deltas: Sequence[Delta], *, more: bool) -> None:
                append(records, deltas, more=more)
                appended.append((len(records), more))

            log.append_nowait = noted  # type: ignore[assignment,method-assign]
            await ann.call("say", text("alone"))
            assert appended.pop() == (1, False), "nothing is held up for one call"
            say, nothing = CallReducer(1, "say", text("x"), False), CallReducer(1, "nothing", b"", False)
            ann.submit(*[say] * 256, *[nothing] * 800, *[say] * 256, *[nothing] * 100)
            await ann.call("nothing")
            told = [count for count, _ in appended]
            assert sum(told) == 512
            assert 0 in told, "a turn without records goes on with a promise"
            assert appended[-1][1] is False
            assert any(more for _, more in appended)
            del log.append_nowait

    run(main)


async def _sync_always(storage: MemoryStorage, stop: trio.Event) -> None:
    while not stop.is_set():
        storage.sync()
        await trio.sleep(0.001)


# Bounds


@in_chat
async def test_a_client_that_asks_too_much_at_once_is_closed_and_nobody_else_notices(handle: DatabaseHandle) -> None:
    ann, bob = TestClient(handle, 1), TestClient(handle, 2)
    await ann.sink.next()
    for _ in range(2):
        ann.submit(*[CallReducer(1, "nothing", b"")] * (QUEUED_REQUESTS_MAX // 2))
    ann.call_nowait("nothing")
    await ann.attachment.wait_detached()
    assert ann.sink.closed == Closed(1013, "too many requests")
    assert (await bob.call("nothing")).outcome.kind == OutcomeKind.COMMITTED


def test_the_settings_say_how_many_requests_of_a_client_may_wait() -> None:
    async def main() -> None:
        async with chat_host(settings=HostSettings(queued_requests_max=3)) as (_, handle):
            ann, bob = TestClient(handle, 1), TestClient(handle, 2)
            ann.submit(*[CallReducer(1, "nothing", b"")] * 4)
            bob.submit(*[CallReducer(1, "nothing", b"")] * 3)
            await ann.attachment.wait_detached()
            assert ann.sink.closed == Closed(1013, "too many requests")
            assert (await bob.call("nothing")).outcome.kind == OutcomeKind.COMMITTED

    run(main)


@in_chat
async def test_readers_wait_while_too_many_requests_wait_in_all(handle: DatabaseHandle) -> None:
    clients = [TestClient(handle, number) for number in range(1, 7)]
    for client in clients:
        client.submit(*[CallReducer(1, "nothing", b"", False)] * 12_000)
    with trio.move_on_after(0) as scope:
        await clients[0].attachment.wait_not_crowded()
    assert scope.cancelled_caught
    await clients[0].attachment.wait_not_crowded()
    assert sum(client.attachment.queued for client in clients) <= 65_536


@in_chat
async def test_a_long_batch_does_not_keep_others_out_of_the_loop(handle: DatabaseHandle) -> None:
    ann = TestClient(handle, 1)
    await ann.sink.next()
    ann.submit(*[CallReducer(1, "nothing", b"", False)] * 10_000)
    checkpoints = 0
    while ann.attachment.queued:
        await trio.lowlevel.checkpoint()
        checkpoints += 1
    assert checkpoints >= 10_000 // 256
