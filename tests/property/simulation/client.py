"""A client: speaks one dialect over a bad network, keeps the cache that a client keeps, and holds it to the model.

Responsible for: `SimulatedClient`, one connection after the other; the checks of I24 to I30.
Not responsible for: what it does next (`script`), bytes of messages (`wire`).

Every message that arrives is found again in what the database said it told (`probes.Tap`), which says how many
transactions it reflects. So the cache can be held to the model at every offset, those without a message included.
"""

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import trio

from stdb.actors.sink import Client
from tests.property.simulation.legacy import LEGACY_PROTOCOLS, LegacySpeech
from tests.property.simulation.model import Query
from tests.property.simulation.network import Behaviour, Pipe
from tests.property.simulation.probes import History, Tap, Told
from tests.property.simulation.wire import Answer, Change, Speech, frames_of
from tests.property.simulation.world import OWNER
from tests.websocket_bytes import client_frame

if TYPE_CHECKING:
    from tests.property.simulation.life import Life

__all__ = ["Character", "SimulatedClient"]

ANSWER_SECONDS_MAX = 200.0
"""No client with a working connection waits longer than this for an answer."""


_NO_INDEX = ("Subscriptions require indexes on join columns", "SubscriptionError: Unsupported query on subscription")
"""Some joins are refused for: in the words of today, and in those of 0.11."""
_KINDS = {
    "initial_connection": ("connected",),
    "reducer_result": ("result",),
    "subscribe_applied": ("subscribed",),
    "subscribe_batch_applied": ("subscribed", "refused"),
    "unsubscribe_applied": ("unsubscribed",),
    "subscription_error": ("refused",),
    "one_off_result": ("one-off",),
    "one_off_results": ("one-off",),
    "update": ("update",),
    "update_at_once": ("update",),
}
"""How each message to a client arrives."""


class Character(NamedTuple):
    """What kind of client somebody is."""

    number: int
    identity: bytes
    protocol: str
    confirmed: bool | None
    light: bool
    behaviour: Behaviour
    is_slow: bool
    """Takes what is sent so slowly that it may be cut for it."""


class SimulatedClient:
    """One person, connected once at a time."""

    def __init__(self, life: "Life", character: Character, random: Random) -> None:
        self.life = life
        self.character = character
        self.client: Client | None = None
        self.is_over = True
        """The connection has ended, or there was none yet."""
        self.is_silent = False
        """The connection is half open."""
        self.seen = 0
        """How many transactions the newest message of a confirmed client reflects."""
        self.comes_again = False
        """The next connection has the connection id of this one."""
        self.connection = 0
        self.held: dict[int, list[Query]] = {}
        self._random = random
        self._checks = life.simulation.checks
        self.is_legacy = character.protocol in LEGACY_PROTOCOLS
        self._scope = trio.CancelScope()
        self._changed = trio.Event()
        self._begin()

    @property
    def is_confirmed(self) -> bool:
        """Tell whether it is told only what is durable."""
        return self._tap is not None and self._tap.confirmed

    def _begin(self) -> None:
        """Forget the last connection."""
        kind = LegacySpeech if self.is_legacy else Speech
        self._speech = kind(self.character.protocol, self.life.simulation.world.shown)
        self.held = {}
        self.is_ending = False
        self.may_fail = self.life.is_full
        """The database was stopped while it was connected."""
        self.is_silent = False
        self._asked: dict[int, tuple[int, list[Query]]] = {}
        self._answered: set[int] = set()
        self._calls: dict[int, int] = {}
        self._rows: Counter[tuple[int | None, str, bytes]] = Counter()
        self._as_of = 0
        self._received = bytearray()
        self._position = 0
        self._count = 0
        self._tap: Tap | None = None
        self._is_head = True
        self._request_id = 100

    # ------------------------------------------------------------------ connecting
    async def connect(self) -> None:
        """Connect; return once the first message or the end is there."""
        is_again, self.comes_again = self.comes_again, False
        connection = self.connection if is_again else self.life.next_connection()
        self._begin()
        life, character = self.life, self.character
        self.is_over = False
        self.connection = connection
        simulation = life.simulation
        self._pipe = pipe = Pipe(self._random, character.behaviour, simulation.durable)
        life.pipes.append(pipe)
        self._scope = trio.CancelScope()
        life.nursery.start_soon(life.serve, pipe.server, self._scope)
        life.nursery.start_soon(self._read, pipe)
        await self._send_raw(self._upgrade(connection))
        await self._until(lambda: self._count > 0)

    def _upgrade(self, connection: int) -> bytes:
        character = self.character
        options = f"compression=None&connection_id={connection:032x}"
        options += f"&light={str(character.light).lower()}"
        if character.confirmed is not None:
            options += f"&confirmed={str(character.confirmed).lower()}"
        line = f"GET /v1/database/simulated/subscribe?{options} HTTP/1.1"
        head = (
            self._speech.request_line(connection) if isinstance(self._speech, LegacySpeech) else line,
            "Host: here",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            f"Sec-WebSocket-Protocol: {self._speech.subprotocol}",
            f"Authorization: Bearer {self.life.simulation.token(character.identity)}",
        )
        return "\r\n".join([*head, "", ""]).encode()

    # ------------------------------------------------------------------ leaving
    async def leave(self) -> None:
        """Say goodbye, and wait until the server closes."""
        self.is_ending = True
        await self._send_raw(client_frame(0x88, b"\x03\xe8"))
        await self._until(lambda: False)

    async def cut(self) -> None:
        """Break the connection."""
        self.is_ending = True
        self._pipe.cut()
        await self._until(lambda: False)

    def go_silent(self) -> None:
        """Be gone without the server knowing."""
        self.is_ending = self.is_silent = self.is_over = True
        self._pipe.go_silent()

    def cancel(self) -> None:
        """Have the server's task of this connection cancelled, wherever it waits."""
        self.is_ending = True
        self._scope.cancel()

    # ------------------------------------------------------------------ asking
    async def call(self, reducer: str, plan: int, tag: int, *, wait: bool) -> None:
        """Call a reducer."""
        request_id = self._next_id()
        if reducer != "idle":
            self._calls[request_id] = tag
        await self._ask(self._speech.call(request_id, reducer, plan, tag), request_id, wait)

    async def subscribe(self, set_id: int, queries: list[Query], *, other_form: bool, wait: bool) -> None:
        """Open a query set."""
        request_id = self._next_id()
        if self._speech.is_v1 and other_form:
            queries = queries[:1]
        self._asked[request_id] = set_id, queries
        await self._ask(self._speech.subscribe(request_id, set_id, queries, other_form), request_id, wait)

    async def unsubscribe(self, set_id: int, *, other_form: bool, wait: bool) -> None:
        """Close a query set."""
        request_id = self._next_id()
        self._asked[request_id] = set_id, []
        await self._ask(self._speech.unsubscribe(request_id, set_id, other_form), request_id, wait)

    async def one_off(self, query: Query, *, wait: bool) -> None:
        """Ask a query once."""
        request_id = self._next_id()
        self._asked[request_id] = -1, [query]
        await self._ask(self._speech.one_off(request_id, query), request_id, wait)

    def _next_id(self) -> int:
        self._request_id += 1
        return self._request_id

    async def _ask(self, message: bytes, request_id: int, wait: bool) -> None:
        await self._send_raw(message)
        if wait:
            await self._until(lambda: request_id in self._answered)

    async def _send_raw(self, data: bytes) -> None:
        if not self.is_over:
            await self._pipe.client.send_all(data)

    async def _until(self, condition: Any) -> None:
        """Wait for something, at most until the connection ends."""
        with trio.move_on_after(ANSWER_SECONDS_MAX) as scope:
            while not (self.is_over or condition()):
                await self._changed.wait()
        is_in_time = self.is_silent or not scope.cancelled_caught
        self._checks.holds("I31", is_in_time, f"client {self.character.number} waits for ever")

    # ------------------------------------------------------------------ hearing
    async def _read(self, pipe: Pipe) -> None:
        while True:
            if self.character.is_slow:
                await trio.sleep(self._random.random() * 2)
            chunk = await pipe.client.receive_some()
            if pipe is not self._pipe:
                return
            if not chunk:
                break
            self._received += chunk
            await self._take()
            self._wake()
        if not self.is_over:
            self.is_over = True
            self.life.ended(self)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _take(self) -> None:
        """Act on everything that has come whole."""
        if self._is_head:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self.life.upgraded(self, bytes(self._received[:end])):
                self.is_ending = True
                self._pipe.cut()
                return
            del self._received[: end + 4]
            self._position += end + 4
            self._is_head = False
        for start, first, payload in frames_of(self._received):
            await self._take_frame(self._position + start, first, payload)
        self._position += self._speech.consumed(self._received)

    async def _take_frame(self, position: int, first: int, payload: bytes) -> None:
        if first == 0x89:
            await self._send_raw(client_frame(0x8A, payload))
        elif first == 0x88:
            self.life.closed(self, int.from_bytes(payload[:2], "big"))
            await self._send_raw(client_frame(0x88, payload))
        elif first in (0x81, 0x82):
            answer = self._speech.hear(payload, self.character.identity, self.connection)
            told = self._found_again(answer)
            if told.needs:
                self._check_durable(position, told)
            self._hear(told, answer)

    def _found_again(self, answer: Answer) -> Told:
        """Return what the database said of this message: the next one in order."""
        if self._tap is None:
            self._tap = self.life.simulation.probes.taps[self.connection.to_bytes(16, "little")]
        self._checks.holds("I26", self._count < len(self._tap.told), f"{answer.kind} was never told")
        told = self._tap.told[self._count]
        kinds = _KINDS[told.kind]
        self._checks.holds("I26", answer.kind in kinds, f"message {self._count} is {answer.kind}, not {told.kind}")
        self._count += 1
        return told

    def _check_durable(self, position: int, told: Told) -> None:
        assert self._tap is not None
        if self._tap.confirmed:
            durable = self._pipe.server.durable_at(position)
            self._checks.holds("I29", told.needs <= durable, f"{told.needs} told when {durable} were durable")
            self.seen = max(self.seen, told.needs)

    # ------------------------------------------------------------------ understanding
    def _hear(self, told: Told, answer: Answer) -> None:
        assert self._tap is not None
        history = self._tap.history
        if told.needs:
            self._checks.holds("I26", told.needs >= self._as_of, f"{told.needs} is told after {self._as_of}")
            for count in range(self._as_of + 1, told.needs):
                self._check_cache(history, count, "between two messages")
                self._check_no_event_missed(history, count)
        self._apply(answer, told, history)
        if told.needs:
            self._as_of = told.needs
            self._check_cache(history, told.needs, answer.kind)
        if answer.request_id is not None:
            self._answered.add(answer.request_id)
        digest = crc32(repr(answer.changes).encode())
        self.life.simulation.trace(f"{self.character.number} hears {answer.kind} {told.needs} {digest:08x}")

    def _apply(self, answer: Answer, told: Told, history: History) -> None:
        set_id, queries = self._asked.get(answer.request_id or 0, (-1, []))
        events = [change for change in answer.changes if change.table == "flash"]
        changes = [change for change in answer.changes if change.table != "flash"]
        match answer.kind:
            case "subscribed":
                self._check_allowed(queries)
                if self.is_legacy:
                    self._replace()
                self.held[set_id] = queries
                self._checks.holds("I26", not events, "events before the subscription")
            case "unsubscribed":
                self.held.pop(set_id)
            case "refused" if answer.request_id in self._asked:
                self._check_refused(set_id, queries, answer.text)
            case "one-off":
                self._check_one_off(queries[0], answer, told, history)
                return
            case "update" | "result":
                self._check_events(events, told, history)
                self._note_result(answer, told)
        for change in changes:
            self._change(change)
        if answer.kind == "unsubscribed" and told.needs:
            found, expected = +self._rows, self._expected(history, told.needs)
            self._checks.holds("I30", found == expected, lambda: f"after {set_id}: {_shown(found, expected)}")

    def _replace(self) -> None:
        """Forget the subscription before: those clients have one."""
        self.held.clear()
        self._rows.clear()

    def _change(self, change: Change) -> None:
        key, table, inserts, deletes = change
        if key is not None:
            self._checks.holds("I24", key in self.held or not inserts, f"set {key} is not held")
        for row in inserts:
            self._rows[key, table, row] += 1
        for row in deletes:
            self._checks.holds("I25", self._rows[key, table, row] > 0, f"{table}: {row!r} deleted, not held")
            self._rows[key, table, row] -= 1
        twice = set(inserts) & set(deletes)
        self._checks.holds("I25", not twice, f"{table}: inserted and deleted at once: {twice}")

    def _note_result(self, answer: Answer, told: Told) -> None:
        tag = self._calls.get(answer.request_id or 0)
        if answer.kind == "result" and tag is not None:
            assert self._tap is not None
            self.life.simulation.acknowledged(tag, answer.is_committed, told.needs, self._tap.confirmed)

    # ------------------------------------------------------------------ checking
    def _expected(self, history: History, count: int) -> Counter[tuple[int | None, str, bytes]]:
        """Return what the queries are worth that are held."""
        if self._speech.is_v1:
            distinct = {query.text: query for queries in self.held.values() for query in queries}
            held: list[tuple[int | None, Query]] = [(None, query) for query in distinct.values()]
        else:
            held = [(set_id, query) for set_id, queries in self.held.items() for query in queries]
        found: Counter[tuple[int | None, str, bytes]] = Counter()
        for key, query in held:
            if query.table != "flash":
                rows = history.evaluate(query, count, self.character.identity)
                for row, many in rows.items():
                    found[key, query.table, row] += many
        if self.is_legacy:
            return Counter(dict.fromkeys(+found, 1))
        return found

    def _check_cache(self, history: History, count: int, when: str) -> None:
        if self.held:
            found, expected = +self._rows, self._expected(history, count)
            self._checks.holds(
                "I24", found == expected, lambda: f"at {count}, {when}: {_shown(found, expected)}, held {self.held}"
            )

    def _check_allowed(self, queries: list[Query]) -> None:
        is_allowed = self.character.identity == OWNER or all(query.is_allowed_to_all for query in queries)
        self._checks.holds("I27", is_allowed, f"a private table is shown to a stranger: {queries}")

    def _check_refused(self, set_id: int, queries: list[Query], text: str) -> None:
        is_rightly = not queries or set_id in self.held or not all(query.is_allowed_to_all for query in queries)
        is_rightly |= any(map(self._speech.is_hidden, queries))
        is_pending = sum(asked == set_id for asked, _ in self._asked.values()) > 1
        is_pending |= text.startswith(_NO_INDEX)  # with the ones of conditions
        self._checks.holds("I24", is_rightly or is_pending, lambda: f"refused without reason: {queries}: {text}")

    def _check_one_off(self, query: Query, answer: Answer, told: Told, history: History) -> None:
        if answer.text:
            self._check_refused(-1, [query], answer.text)
            return
        self._check_allowed([query])
        found = Counter(row for change in answer.changes for row in change.inserts)
        expected = history.evaluate(query, told.needs, self.character.identity)
        self._checks.equal("I24", found, expected, f"one-off {query.text}")

    def _holds_flash(self) -> list[int]:
        return [set_id for set_id, queries in self.held.items() if any(query.table == "flash" for query in queries)]

    def _check_no_event_missed(self, history: History, count: int) -> None:
        is_missed = bool(self._holds_flash()) and bool(history.flashes.get(count))
        self._checks.holds("I24", not is_missed, f"the events of {count} were not told")

    def _check_events(self, events: list[Change], told: Told, history: History) -> None:
        if not told.needs or told.needs == self._as_of:
            self._checks.holds("I24", not events, "events of no transaction, or twice")
            return
        expected = Counter(history.flashes.get(told.needs, ()))
        listeners = self._holds_flash()
        sets: list[int | None] = [*listeners] if not self._speech.is_v1 else [None] if listeners else []
        for key in sets:
            found = Counter(row for each in events if each.set_id == key for row in each.inserts)
            self._checks.equal("I24", found, expected, f"events at {told.needs}")
        self._checks.holds("I27", all(each.set_id in sets for each in events), "events for nobody")


def _shown(found: Counter[Any], expected: Counter[Any]) -> str:
    return f"too much {dict(found - expected)}, missing {dict(expected - found)}"
