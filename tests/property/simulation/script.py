"""The script: what clients do, one step after the other, as chance has it.

Responsible for: the characters of a life, and `play`, the life of one person.
Not responsible for: what they make of what they hear (`client`).
"""

from random import Random
from typing import TYPE_CHECKING

import trio

from stdb.actors.refusals import ConnectRefused, DatabaseUnavailable
from stdb.actors.sink import Client
from tests.property.simulation.client import Character, SimulatedClient
from tests.property.simulation.legacy import LEGACY_PROTOCOLS
from tests.property.simulation.network import Behaviour
from tests.property.simulation.world import OWNER, PEOPLE

if TYPE_CHECKING:
    from tests.property.simulation.life import Life

__all__ = ["draw_characters", "play"]

_PROTOCOLS = ("v1.json", "v1.bsatn", "v2.bsatn", "v3.bsatn")


def draw_characters(random: Random) -> list[Character]:
    """Return who takes part in a life."""
    drawn = [_draw_character(random, number) for number in range(1, random.randint(2, 4) + 1)]
    return [
        each._replace(protocol=random.choice(LEGACY_PROTOCOLS)) if random.random() < 0.3 else each for each in drawn
    ]


def _draw_character(random: Random, number: int) -> Character:
    is_slow = random.random() < 0.25
    return Character(
        number,
        random.choice((OWNER, *PEOPLE, *PEOPLE)),
        random.choice(_PROTOCOLS),
        random.choice((None, None, True, False)),
        random.random() < 0.3,
        Behaviour(
            chunk_max=random.choice((9, 100, 1000, 100_000, 100_000)) if not is_slow else 300,
            delay_s_max=random.choice((0.0, 0.001, 0.05)),
            capacity_bytes=random.choice((300, 1500, 100_000)) if is_slow else 1_000_000,
        ),
        is_slow,
    )


async def play(life: "Life", client: SimulatedClient, random: Random, steps: int) -> None:
    """Live through some steps."""
    await client.connect()
    for _ in range(steps):
        if client.is_over:
            await trio.sleep(random.random() * 0.05)
            await client.connect()
            continue
        await _step(life, client, random)


async def _step(life: "Life", client: SimulatedClient, random: Random) -> None:
    chance, wait = random.random(), random.random() < 0.5
    queries = life.queries
    if chance < 0.45:
        reducer = random.choice(("work", "work", "work", "work", "note", "idle"))
        await client.call(reducer, random.getrandbits(32), life.next_tag(), wait=wait)
    elif chance < 0.65:
        chosen = list(dict.fromkeys(random.choices(queries, k=random.choice((1, 1, 2)))))
        await client.subscribe(random.randint(1, 4), chosen, other_form=random.random() < 0.3, wait=wait)
    elif chance < 0.72:
        await client.unsubscribe(random.randint(1, 4), other_form=False, wait=wait)
    elif chance < 0.77:
        await client.one_off(random.choice(queries), wait=wait)
    elif chance < 0.82:
        await _call_over_http(life, client, random)
    elif chance < 0.92:
        await trio.sleep(random.random() ** 2 * 0.1)
    else:
        await _go(life, client, random)


async def _go(life: "Life", client: SimulatedClient, random: Random) -> None:
    """End the connection in one of many ways."""
    life.simulation.trace(f"{client.character.number} goes")
    match random.randrange(4):
        case 0:
            await client.leave()
        case 1:
            await client.cut()
        case 2:
            client.go_silent()
            client.comes_again = random.random() < 0.5
        case _:
            client.cancel()
            await client._until(lambda: False)


async def _call_over_http(life: "Life", client: SimulatedClient, random: Random) -> None:
    """Call a reducer between a connect and a disconnect of its own; perhaps give up the answer."""
    simulation = life.simulation
    caller = Client(client.character.identity, life.next_connection().to_bytes(16, "little"), '{"sub":"http"}')
    tag, plan, is_confirmed = life.next_tag(), random.getrandbits(32), random.random() < 0.7
    with trio.move_on_after(0.001 if random.random() < 0.3 else 100) as scope:
        try:
            handle = life.host.database(simulation.identity)
            result = await handle.call(caller, "work", f"[{plan}, {tag}]", confirmed=is_confirmed)
        except (ConnectRefused, DatabaseUnavailable) as error:
            simulation.trace(f"an HTTP call is refused: {type(error).__name__}")
            return
        is_committed = result.outcome.kind == 0
        needs = len(life.history.states) - 1 if is_confirmed else 0
        simulation.acknowledged(tag, is_committed, 0, is_confirmed)
        simulation.trace(f"an HTTP call ends {result.outcome.kind} {needs > 0}")
    simulation.checks.holds("I31", scope.deadline < trio.current_time() + 1e9, "an HTTP call has a limit")
