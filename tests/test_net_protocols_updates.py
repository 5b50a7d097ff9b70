"""Updates in every dialect: encoded once for all who are told the same, told at once or queued (DESIGN decision 7)."""

from typing import Any

import pytest

from stdb.net.protocols.dialect import ConnectionOptions
from stdb.net.protocols.registry import SUBPROTOCOLS
from stdb.net.protocols.wire import Compression
from stdb.sats import bsatn
from stdb.sats.types import U8, Element, Product
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate
from tests.websocket_messages import V9, V10, Spoken, event

NAMES = [name.removesuffix(".spacetimedb") for name in SUBPROTOCOLS]
EVENT = event(needs=7, reducer_name="say", timestamp_us=5)


class Columns:
    """What JSON needs of a table's schema."""

    row_type = Product((Element("a", U8),))
    codec = bsatn.codec(row_type)


def seen(name: str) -> ClientUpdate:
    fragment = Fragment(1, "person", Columns, [b"\1"], [b"\2"])
    return ClientUpdate((SetUpdate(3 if name.startswith(("v2", "v3")) else None, (fragment,)),))


def clients(name: str, definition: Any = V10) -> list[Spoken]:
    """Return a client of each kind: light or not, confirmed or not, with both compressions."""
    return [
        Spoken(name, ConnectionOptions(compression=compression, light=light, confirmed=confirmed), definition)
        for compression in (Compression.NONE, Compression.GZIP)
        for light in (False, True)
        for confirmed in (False, True)
    ]


@pytest.mark.parametrize("definition", [V9, V10], ids=["v9", "v10"])
@pytest.mark.parametrize("name", NAMES)
def test_an_update_told_at_once_is_the_same_as_one_that_is_queued_and_flushed(name: str, definition: Any) -> None:
    shared = seen(name)
    for queued, told in zip(clients(name, definition), clients(name, definition), strict=True):
        queued.sink.update(EVENT, seen(name))  # alone: nothing is shared
        assert told.sink.update_at_once(EVENT, shared, 6) == told.sink.confirmed
        early = told.frames(durable=6)
        assert early == queued.frames(durable=6)
        assert bool(early) != told.sink.confirmed
        assert told.frames(durable=7) == queued.frames(durable=7)


@pytest.mark.parametrize("name", NAMES)
def test_an_update_is_encoded_once_for_all_who_are_told_the_same(name: str) -> None:
    group = clients(name)
    update = seen(name)
    for client in (*group, *group):
        client.sink.update_at_once(EVENT, update, 7)
    entries = [entry for entry in update.cache.values() if type(entry) is tuple]
    assert {needs for needs, _ in entries} == {0, 7}
    assert len({id(frame) for _, frame in entries}) == 2, "once a compression"
    assert all(len(client.frames(durable=7)) == 2 for client in group)
