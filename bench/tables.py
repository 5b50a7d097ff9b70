"""Tables and subscriptions in this process: what a database does between a commit and its sockets."""

import itertools
from collections.abc import Iterable
from pathlib import Path

from bench.harness import ROOT
from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.datastore.table import Table
from stdb.modules.python.loader import load
from stdb.sql.work import finish
from stdb.subscriptions import Evaluation, Registry, SubscriptionActor

ROWS_PER_TRANSACTION = 20_000
OWNER, CLIENT = bytes(31) + b"\1", bytes(31) + b"\2"
FRESH = itertools.count(1)
"""Values that no row had before: every change changes something."""


class Tables:
    """The tables of one of `modules/`, with a registry."""

    def __init__(self, program: str) -> None:
        path = Path(program)
        self.datastore = Datastore()
        transaction = self.datastore.begin(0)
        self.datastore.create_tables(load({path.name: (ROOT / path).read_bytes()}).definition)
        transaction.commit()
        self.registry = self.new_registry()

    def new_registry(self) -> Registry:
        """Forget all subscriptions."""
        self.registry = Registry(self.datastore, OWNER)
        return self.registry

    def table(self, name: str) -> Table:
        return self.datastore.table(name)

    def fill(self, name: str, rows: Iterable[bytes]) -> None:
        """Insert rows, some in a transaction."""
        insert, remaining = self.table(name).insert, iter(rows)
        while part := list(itertools.islice(remaining, ROWS_PER_TRANSACTION)):
            transaction = self.datastore.begin(0)
            for row in part:
                insert(row)
            transaction.commit()

    def update(self, name: str, key: int, row: bytes) -> Delta:
        """Replace one row by its primary key; return what changed."""
        transaction = self.datastore.begin(0)
        self.table(name).update_key(key, row)
        delta = transaction.commit()
        assert delta is not None
        return delta

    def subscribe(self, query: str) -> SubscriptionActor:
        """Return a new client that holds a query."""
        actor = SubscriptionActor(self.registry, CLIENT)
        finish(actor.subscribe_set(1, [query]))
        return actor


def rows_seen(evaluation: Evaluation) -> int:
    """Return how many rows all clients are told of."""
    fragments = (each for _, update in evaluation.others for told in update.sets for each in told.fragments)
    return sum(len(fragment.inserts) + len(fragment.deletes) for fragment in fragments)
