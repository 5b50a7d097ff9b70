"""One life of the server: from its start to a crash or a clean end, with everybody who is connected meanwhile.

Responsible for: starting and ending server, network and people; I22, I31 and I32.
Not responsible for: what outlives it (`simulation`), what people do (`script`).
"""

from collections import Counter
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import trio

from stdb.actors.host import Host, HostSettings
from stdb.actors.refusals import DatabaseUnavailable
from stdb.net.front_door import FrontDoor
from stdb.testing.hosts import virtual_now_us
from tests.property.simulation.client import SimulatedClient
from tests.property.simulation.network import Pipe, ServerEnd
from tests.property.simulation.probes import History, state_of
from tests.property.simulation.schema import operate, reset
from tests.property.simulation.script import draw_characters, play
from tests.property.simulation.storage import FULL
from tests.property.simulation.world import OWNER

if TYPE_CHECKING:
    from tests.property.simulation.simulation import Simulation

__all__ = ["Life"]

SILENT_SECONDS = 40.0
"""By then the server has given up every connection that hears nothing."""
LEGACY_SILENT_SECONDS = 130.0
"""The same for clients of 0.11 and older, which are pinged every minute."""
INTERVAL_SECONDS_MAX = 7.0
"""In so long every interval rings."""
CLOSING_SECONDS_MAX = 5.0


class Life:
    """One server process."""

    def __init__(self, simulation: "Simulation", number: int) -> None:
        self.simulation = simulation
        self.number = number
        self.pipes: list[Pipe] = []
        self.is_over = False
        """The server ends: connections may end with it."""
        self.is_full = False
        """The disk is: the database is stopped."""
        self.nursery: trio.Nursery
        self.host: Host
        self._door: FrontDoor
        self._random = Random(f"life {simulation.seed} {number}")
        self._scope = trio.CancelScope()
        self._clients: list[SimulatedClient] = []
        queries = simulation.world.queries
        self.queries = [*simulation.world.favourites, *self._random.sample(queries, 6)]
        """What clients ask in this life: few, so that they share them."""

    @property
    def history(self) -> History:
        """What happened so far."""
        return self.simulation.probes.history

    # ------------------------------------------------------------------ the course of it
    async def live(self, steps: int, *, crashes: bool, is_last: bool = False) -> None:
        """Live it to its end."""
        simulation = self.simulation
        simulation.trace(f"life {self.number} begins{', it will crash' if crashes else ''}")
        with self._scope:
            async with trio.open_nursery() as self.nursery:
                self.nursery.start_soon(simulation.storage.write_now_and_then)
                if crashes and self.number:
                    self.nursery.start_soon(self._crash)
                settings = HostSettings(operator=OWNER)
                async with Host.open(simulation.storage, simulation.load, settings, now_us=virtual_now_us) as self.host:
                    self._door = FrontDoor(self.host, simulation.tokens, operator=OWNER, now_us=virtual_now_us)
                    if not self.number:
                        await simulation.publish_first(self.host)
                        if crashes:
                            self.nursery.start_soon(self._crash)
                    try:
                        await self._run_people(steps)
                        if crashes:
                            await trio.sleep_forever()
                        await self._settle()
                        if is_last:
                            await self._check_end()
                    finally:
                        self.is_over = True
                with trio.move_on_after(CLOSING_SECONDS_MAX):
                    while not all(pipe.is_over for pipe in self.pipes):  # noqa: ASYNC110 - no event for all
                        await trio.sleep(0.1)
                self.nursery.cancel_scope.cancel()
        for pipe in self.pipes:
            pipe.cut()
        simulation.seen_confirmed += [client.seen for client in self._clients]

    async def _run_people(self, steps: int) -> None:
        async with trio.open_nursery() as people:
            for character in draw_characters(self._random):
                random = Random(f"person {self.simulation.seed} {self.number} {character.number}")
                client = SimulatedClient(self, character, random)
                self._clients.append(client)
                people.start_soon(play, self, client, random, steps)
            people.start_soon(self._operate)
            if self._random.random() < 0.2:
                people.start_soon(self._fill_disk)

    async def _operate(self) -> None:
        random = Random(f"operator {self.simulation.seed} {self.number}")
        for _ in range(random.randint(0, 3)):
            await trio.sleep(random.random() * 0.1)
            await operate(self, self.host, random)

    async def _crash(self) -> None:
        await trio.sleep(self._random.random() ** 2 * 0.6)
        self.simulation.trace(f"a crash; {self.simulation.durable()} are durable")
        self.is_over = True
        self.simulation.crashed()
        for pipe in self.pipes:
            pipe.cut()
        self._scope.cancel()

    async def _settle(self) -> None:
        """Have everybody hear everything."""
        for client in self._clients:
            await client.one_off(self.simulation.world.queries[0], wait=True)

    def is_failing(self, client: SimulatedClient) -> bool:
        """Tell whether a connection may end, or be refused, by no fault of anybody."""
        return self.is_over or client.may_fail or self.is_full

    async def _fill_disk(self) -> None:
        """Have the disk fill up; when there is space again, launch the database anew."""
        simulation = self.simulation
        await trio.sleep(self._random.random() * 0.3)
        if self.is_over:
            return
        self.is_full = True
        simulation.trace(f"the disk is full; {simulation.durable()} are durable")
        simulation.durable_before = simulation.durable()
        simulation.complaints.expected = FULL
        simulation.storage.fill()
        for client in self._clients:
            client.may_fail = True  # some learn of it late
        await trio.sleep(0.5 + self._random.random())
        with suppress(DatabaseUnavailable):
            await self.host.restart(OWNER, simulation.identity)
        simulation.complaints.expected = ""
        for client in self._clients:
            client.may_fail = True
        self.is_full = False

    # ------------------------------------------------------------------ what clients ask
    async def serve(self, stream: ServerEnd, scope: trio.CancelScope) -> None:
        """Serve a connection, in a scope that may be cancelled at any time (I32)."""
        with scope:
            await self._door.serve_connection(stream)

    def next_tag(self) -> int:
        """Return a number for a call."""
        self.simulation.tags += 1
        return self.simulation.tags

    def next_connection(self) -> int:
        """Return a connection id."""
        self.simulation.connections += 1
        return self.simulation.connections

    # ------------------------------------------------------------------ what clients tell
    def upgraded(self, client: SimulatedClient, head: bytes) -> bool:
        """Take in the answer to an upgrade; tell whether it was granted."""
        status = int(head.split()[1])
        self.simulation.trace(f"{client.character.number} connects as {client.connection}: {status}")
        self.simulation.checks.holds(
            "I31", status == 101 or self.is_failing(client), f"an upgrade was answered {head!r}"
        )
        return status == 101

    def closed(self, client: SimulatedClient, code: int) -> None:
        """Take in a Close."""
        self.simulation.trace(f"{client.character.number} is closed with {code}")
        is_expected = client.is_ending or self.is_failing(client)
        is_expected |= client.is_legacy and client.connection % 7 == 3  # who is banned is told so
        self.simulation.checks.holds("I31", is_expected, f"client {client.character.number} was closed with {code}")

    def ended(self, client: SimulatedClient) -> None:
        """Take in that a connection has ended."""
        simulation = self.simulation
        simulation.trace(f"the connection of {client.character.number} ends")
        is_banned = client.connection % 7 == 3
        is_expected = client.is_ending or self.is_failing(client) or is_banned or client.character.is_slow
        is_expected |= simulation.probes.is_tight and client.is_confirmed  # while the disk is slow, too much waits
        simulation.checks.holds("I31", is_expected, f"client {client.character.number} was cut")

    # ------------------------------------------------------------------ the end of the last life
    async def _check_end(self) -> None:
        simulation, checks = self.simulation, self.simulation.checks
        await trio.sleep(LEGACY_SILENT_SECONDS if any(each.is_legacy for each in self._clients) else SILENT_SECONDS)
        await self._settle()
        before = state_of(simulation.datastore)
        alive = {(each.character.identity, each.connection) for each in self._clients if not each.is_over}
        here = {(row[:32], int.from_bytes(row[32:], "little")) for row in before["st_client"]}
        checks.equal("I32", here, alive, "who is connected when every connection that failed was given up")
        await trio.sleep(INTERVAL_SECONDS_MAX)
        self._check_alarms(before, state_of(simulation.datastore))
        simulation.datastore.verify()
        for client in self._clients:
            if not client.is_over:
                await client.leave()
        await trio.sleep(1.0)
        checks.equal("I21", len(simulation.datastore.table("st_client")), 0, "clients when all have left")
        if self._random.random() < 0.3:
            await reset(simulation, self.host)

    def _check_alarms(self, before: dict[str, frozenset[bytes]], after: dict[str, frozenset[bytes]]) -> None:
        """Check that nothing due is left, and that intervals rang meanwhile (I22)."""
        checks, shapes = self.simulation.checks, self.simulation.world.shapes
        rung = Counter(shapes["rung"].decode(row)[1] for row in after["rung"] - before["rung"])
        for row in after["alarm"]:
            alarm_id, (is_once, _), _, mode = shapes["alarm"].decode(row)
            checks.holds("I22", not is_once, f"alarm {alarm_id} was due and is still there")
            if row in before["alarm"] and mode == 0:
                checks.holds("I22", rung[alarm_id] > 0, f"the interval {alarm_id} rang {rung[alarm_id]} times")
