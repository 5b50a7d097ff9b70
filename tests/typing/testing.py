"""What a module's tests write, as type checkers see it."""

from typing import assert_type

from stdb import Identity, Timestamp
from stdb.testing import AsyncTestHost, LogLine, TableView, TestHost, Update, state_machine
from tests import testing_market as market
from tests.testing_market import Item, Kind, Place, Rang, sold


def test_plain(host: TestHost) -> None:
    alice = host.connect("alice", claims={"role": "admin"})
    assert_type(alice.identity, Identity)
    alice.call(market.put, Kind.FRUIT, Place(x=1, y=2), price=3)
    alice.call(market.ring, times=2)
    assert_type(alice.call(market.nap, 3), Place)
    assert_type(alice.call(market.rate, factor=3), int)
    alice.call("put", Kind.FRUIT, Place(x=1, y=2))
    assert_type(host[Item], TableView[Item])
    assert_type(host[sold], TableView[Item])
    assert_type(host[Item].get(1), Item | None)
    assert_type(list(host[Item].filter(Item.price > 3)), list[Item])
    assert_type(host[Item].one().place.x, int)
    assert_type(alice.subscribe(Item, sold, market.mine, "SELECT * FROM rang"), int)
    assert_type(alice.rows(Item), list[Item])
    assert_type(alice.rows(sold), list[Item])
    assert_type(alice.rows(market.mine), list[Item])
    assert_type(alice.query(market.first), list[Item])
    assert_type(alice.query(market.fruit), list[Item])
    assert_type(alice.query(Rang), list[Rang])
    alice.on_insert(Item, lambda row: row.price)
    alice.on_update(Item, lambda old, new: old.price - new.price)
    assert_type(alice.updates, list[Update])
    assert_type(alice.updates[0].inserted(Rang), list[Rang])
    assert_type(alice.updates[0].updated(Item), list[tuple[Item, Item]])
    assert_type(host.now, Timestamp)
    assert_type(host.log, list[LogLine])


async def test_async() -> None:
    async with AsyncTestHost.open(market, seed=3) as host, await host.connect() as alice:
        await alice.call(market.put, Kind.FRUIT, Place(x=1, y=2))
        assert_type(await alice.call(market.nap, 3), Place)
        assert_type(await alice.query(Item), list[Item])
        assert_type(host[Item], TableView[Item])


def everything_is_cheap(host: TestHost) -> None:
    assert all(item.price < 9 for item in host[Item])


TestMarket = state_machine(market, invariants=[everything_is_cheap]).TestCase
