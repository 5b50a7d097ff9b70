"""Mistakes in a module's tests: every line marked mypy is reported."""

from stdb.testing import TestHost
from tests import testing_market as market
from tests.testing_market import Item, Kind, Place


def test_mistakes(host: TestHost) -> None:
    alice = host.connect()
    alice.call(market.put, "fruit", Place(x=1, y=2))  # mypy
    alice.call(market.put, Kind.FRUIT)  # mypy
    alice.call(market.put, Kind.FRUIT, Place(x=1, y=2), colour=3)  # mypy
    alice.call(market.nap, "long")  # mypy
    text: str = alice.call(market.nap, 3)  # mypy
    assert text == host[Item].one().colour  # mypy
    alice.on_insert(Item, lambda row: row.colour)  # mypy
    host.connect(5)  # mypy
