"""Random clients through the real codecs, frames and connections: every client's cache is its queries' result (I24)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_net_connection_chat import ChatClient, database
from tests.websocket_messages import rows_of

QUERIES = (
    "SELECT * FROM message",
    "SELECT * FROM message WHERE text = 'a'",
    "SELECT * FROM events WHERE what = 'a' OR what = 'b'",
    "SELECT * FROM online",
)


class Subscribing(NamedTuple):
    set_id: int
    query: int
    other_form: bool
    """As a Single on v1, in a batch on v2."""


class Unsubscribing(NamedTuple):
    set_id: int
    other_form: bool
    """As a Single on v1."""


class Calling(NamedTuple):
    reducer: str
    text: str


STEPS = st.one_of(
    st.builds(Subscribing, st.integers(0, 3), st.integers(0, len(QUERIES) - 1), st.booleans()),
    st.builds(Unsubscribing, st.integers(0, 3), st.booleans()),
    st.builds(Calling, st.sampled_from(["say", "note", "write_and_fail", "flash"]), st.sampled_from(["a", "b", "cc"])),
)
Row: TypeAlias = bytes | str
"""A row as it came: BSATN, or the text of v1.json."""

PEOPLE = st.lists(
    st.tuples(st.sampled_from(["v1.json", "v1.bsatn", "v2.bsatn", "v3.bsatn"]), st.lists(STEPS, max_size=12)),
    min_size=1,
    max_size=4,
)


class Cache:
    """What a client of one generation knows, from messages alone."""

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self.rows: Counter[tuple[int | None, str, Row]] = Counter()
        self.held: dict[int, str] = {}
        self.asked: dict[int, str] = {}
        self.answer: list[Row] | None = None

    async def until_answer(self) -> list[Row]:
        """Take messages until a one-off query was answered; return its rows."""
        self.answer = None
        while self.answer is None:
            tag, fields = await self.client.next()
            (self._take_v1 if self.client.is_v1 else self._take_v2)(tag, fields)
        return self.answer

    def _take_v1(self, tag: int, fields: Any) -> None:
        match tag:
            case 8:
                self.held[fields[2][0]] = self.asked[fields[0]]
                self._change_v1(fields[3][0])
            case 5:
                self.held[fields[2][0]] = self.asked[fields[0]]
                self._change_v1([fields[3][2]])
            case 6:
                del self.held[fields[2][0]]
                self._change_v1([fields[3][2]])
            case 9:
                del self.held[fields[2][0]]
                self._change_v1(fields[3][0])
            case 1 if fields[0][0] == 0:
                self._change_v1(fields[0][1][0])
            case 2:
                self._change_v1(fields[1][0])
            case 4:
                self.answer = [row for _, rows in fields[2] for row in rows_of(rows)]

    def _change_v1(self, tables: list[Any]) -> None:
        for _, name, _, updates in tables:
            for update in updates:
                deletes, inserts = update if self.client.is_json else update[1]
                self._change(None, name, rows_of(inserts), rows_of(deletes))

    def _take_v2(self, tag: int, fields: Any) -> None:
        match tag:
            case 1:
                self.held[fields[1][0]] = self.asked[fields[0]]
                for name, rows in fields[2][0]:
                    self._change(fields[1][0], name, rows_of(rows), [])
            case 8:
                for (set_id,), (outcome, applied) in fields[1]:
                    if outcome == 0:
                        self.held[set_id] = self.asked[fields[0]]
                        for name, rows in applied[0]:
                            self._change(set_id, name, rows_of(rows), [])
            case 2:
                del self.held[fields[1][0]]
                for name, rows in fields[2][0]:
                    self._change(fields[1][0], name, [], rows_of(rows))
            case 4:
                self._change_v2(fields[0])
            case 6 if fields[2][0] == 0:
                self._change_v2(fields[2][1][1][0])
            case 5:
                self.answer = [row for _, rows in fields[1][1][0] for row in rows_of(rows)]

    def _change_v2(self, query_sets: list[Any]) -> None:
        for (set_id,), tables in query_sets:
            assert set_id in self.held, "no update mentions a set that is not held"
            for name, changes in tables:
                for kind, lists in changes:
                    if kind == 0:
                        inserts, deletes = lists
                        self._change(set_id, name, rows_of(inserts), rows_of(deletes))

    def _change(self, key: int | None, name: str, inserts: Sequence[Row], deletes: Sequence[Row]) -> None:
        for row in inserts:
            self.rows[key, name, row] += 1
        for row in deletes:
            assert self.rows[key, name, row] > 0, "deleted, not held"
            self.rows[key, name, row] -= 1

    def ask(self, query: str) -> None:
        self.client.send((2, (b"q", query)) if self.client.is_v1 else (2, (7, query)))


async def live(client: ChatClient, steps: list[Any]) -> Cache:
    cache = Cache(client)
    for request_id, step in enumerate(steps, 100):
        match step:
            case Subscribing(set_id, query, other_form):
                text = cache.asked[request_id] = QUERIES[query]
                if not other_form:
                    client.subscribe(request_id, set_id, text)
                elif client.is_v1:
                    client.send((3, (text, request_id, (set_id,))))
                else:
                    client.send((5, (request_id, [((set_id,), [text])])))
            case Unsubscribing(set_id, other_form):
                if other_form and client.is_v1:
                    client.send((5, (request_id, (set_id,))))
                else:
                    client.unsubscribe(request_id, set_id)
            case Calling(reducer, text):
                client.call(request_id, reducer, text)
        await trio.lowlevel.checkpoint()
    return cache


async def expected(cache: Cache) -> Counter[tuple[int | None, str, Row]]:
    """Ask the held queries afresh."""
    held = [(None, query) for query in set(cache.held.values())] if cache.client.is_v1 else list(cache.held.items())
    counted: Counter[tuple[int | None, str, Row]] = Counter()
    for key, query in held:
        cache.ask(query)
        for row in await cache.until_answer():
            counted[key, query.split()[3], row] += 1
    return counted


async def play(people: list[tuple[str, list[Any]]]) -> None:
    with trio.fail_after(3600):
        async with database() as (nursery, handle):
            caches: list[Cache] = []

            async def one(number: int, protocol: str, steps: list[Any]) -> None:
                caches.append(await live(ChatClient(nursery, handle, protocol, number), steps))

            async with trio.open_nursery() as lives:
                for number, (protocol, steps) in enumerate(people, 1):
                    lives.start_soon(one, number, protocol, steps)
            for cache in caches:  # all that was asked is answered
                cache.ask(QUERIES[0])
                await cache.until_answer()
            for cache in caches:  # and nothing changes any more
                assert await expected(cache) == +cache.rows


@settings(max_examples=60, deadline=None)
@given(people=PEOPLE, schedule=st.random_module())
def test_every_clients_cache_is_the_result_of_its_queries(
    people: list[tuple[str, list[Any]]], schedule: object
) -> None:
    trio.run(play, people, clock=trio.testing.MockClock(autojump_threshold=0))
