"""Clients under row-level security: who is told of which rows, and when they come and go."""

from collections import Counter
from typing import Any

import pytest

from stdb.errors import QueryError
from stdb.schema.model import RowLevelSecurityDef
from stdb.sql import run_sql
from stdb.sql.rules import replace_rules
from stdb.sql.work import finish
from stdb.subscriptions import Registry, SubscriptionActor
from tests.rules_town import ALICE, BOB, LETTERS_TO, OWN_LETTERS, OWN_PERSON, ROOMS_OF_VAULT, fill, town
from tests.sql_schemas import OWNER
from tests.subscriptions_world import Cache


class Client:
    """A client that keeps the rows of its query sets, each as often as it was told of it."""

    def __init__(self, registry: Registry, identity: bytes, *texts: str) -> None:
        self.actor = SubscriptionActor(registry, identity)
        self.cache = Cache()
        self.cache.apply(1, finish(self.actor.subscribe_set(1, texts)))

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table that the client holds."""
        rows = self.cache.contents().get((1, table), Counter())
        codec = self.actor.registry.datastore.table(table).schema.codec
        return sorted(map(codec.decode_exact, rows.elements()))


def commit(registry: Registry, clients: list[Client], **changes: tuple[list[Any], list[Any]]) -> list[Client]:
    """Take rows out of tables and put rows in, in one transaction; return the clients that are told of it."""
    datastore = registry.datastore
    transaction = datastore.begin(0)
    for name, (deletes, inserts) in changes.items():
        table = datastore.table(name)
        assert all(transaction.delete(table, table.schema.codec.encode(row)) for row in deletes)
        for row in inserts:
            transaction.insert(table, table.schema.codec.encode(row))
    delta = transaction.commit()
    assert delta is not None
    told = dict(registry.evaluate(delta).others)
    for client in clients:
        client.cache.update(told.get(client.actor))
    return [client for client in clients if client.actor in told]


def test_clients_with_the_same_text_each_see_what_is_theirs() -> None:
    datastore = town(OWN_LETTERS, LETTERS_TO)
    fill(datastore, letter=[(1, ALICE, BOB), (2, BOB, BOB)])
    registry = Registry(datastore, OWNER)
    owner, alice, bob, again, nobody = clients = [
        Client(registry, identity, "select * from letter") for identity in (OWNER, ALICE, BOB, ALICE, bytes(32))
    ]
    assert len(registry) == 4  # the two of ALICE share one
    one, two, three = (1, ALICE, BOB), (2, BOB, BOB), (3, OWNER, ALICE)
    assert [client.rows("letter") for client in clients] == [[one, two], [one], [one, two, two], [one], []]
    assert commit(registry, clients, letter=([], [three])) == [owner, alice, again]
    assert [client.rows("letter") for client in clients] == [
        [one, two, three],
        [one, three],
        [one, two, two],
        [one, three],
        [],
    ]
    assert commit(registry, clients, letter=([two], [])) == [owner, bob]
    assert bob.rows("letter") == [one]
    assert commit(registry, clients, letter=([one], [(1, BOB, ALICE)])) == [owner, alice, bob, again]
    assert alice.rows("letter") == [(1, BOB, ALICE), three]
    assert nobody.rows("letter") == []


def test_rows_come_and_go_with_their_partners_in_a_private_table() -> None:
    datastore = town(ROOMS_OF_VAULT)
    rooms = [(1, "a"), (2, "b")]
    fill(datastore, room=rooms, vault=[(ALICE, 1)])
    registry = Registry(datastore, OWNER)
    _, alice, bob = clients = [Client(registry, who, "select * from room") for who in (OWNER, ALICE, BOB)]
    assert [client.rows("room") for client in clients] == [rooms, rooms[:1], []]
    assert commit(registry, clients, vault=([(ALICE, 1)], [(ALICE, 2)])) == [alice]
    assert alice.rows("room") == rooms[1:]
    assert commit(registry, clients, vault=([(ALICE, 2)], [(BOB, 2)])) == [alice, bob]
    assert [client.rows("room") for client in clients] == [rooms, [], rooms[1:]]
    assert commit(registry, clients, vault=([(BOB, 2)], [(ALICE, 1)]), room=([(1, "a")], [(1, "c")])) == [*clients]
    assert [client.rows("room") for client in clients] == [[(1, "c"), (2, "b")], [(1, "c")], []]
    assert commit(registry, clients, vault=([], [(OWNER, 2)])) == []


def test_rules_within_rules_are_kept_up_to_date() -> None:
    datastore = town(OWN_PERSON, "SELECT l.* FROM person p JOIN letter l ON p.who = l.by")
    letter = (1, ALICE, BOB)
    fill(datastore, letter=[letter, (2, BOB, BOB)])
    registry = Registry(datastore, OWNER)
    alice, _ = clients = [Client(registry, who, "select * from letter where id > 0") for who in (ALICE, BOB)]
    assert [client.rows("letter") for client in clients] == [[], []]
    assert commit(registry, clients, person=([], [(ALICE, BOB, 1)])) == [alice]
    assert [client.rows("letter") for client in clients] == [[letter], []]
    assert commit(registry, clients, person=([(ALICE, BOB, 1)], []), letter=([], [(3, ALICE, BOB)])) == [alice]
    assert [client.rows("letter") for client in clients] == [[], []]


def test_events_are_told_to_those_whom_a_rule_names() -> None:
    datastore = town("SELECT * FROM ping WHERE to = :sender")
    registry = Registry(datastore, OWNER)
    owner, alice, bob = clients = [Client(registry, who, "select * from ping") for who in (OWNER, ALICE, BOB)]
    assert commit(registry, clients, ping=([], [(1, ALICE)])) == [owner, alice]
    assert commit(registry, clients, ping=([], [(1, BOB), (2, OWNER)])) == [owner, bob]


def test_subscribing_to_all_tables_is_filtered() -> None:
    datastore = town(OWN_LETTERS, OWN_PERSON)
    fill(datastore, letter=[(1, ALICE, BOB), (2, BOB, BOB)], vault=[(ALICE, 1)], person=[(BOB, BOB, 1)])
    registry = Registry(datastore, OWNER)
    alice, owner = Client(registry, ALICE, "select * from *"), Client(registry, OWNER, "select * from *")
    assert {name for _, name in alice.cache.contents()} == {"letter"}
    assert alice.rows("letter") == [(1, ALICE, BOB)]
    assert {name for _, name in owner.cache.contents()} == {"letter", "person", "vault"}


def test_clients_whose_query_depends_on_who_asks_after_an_update_share_it_no_longer() -> None:
    datastore = town("SELECT * FROM letter WHERE id < 9")
    fill(datastore, letter=[(1, ALICE, BOB)])
    registry = Registry(datastore, OWNER)
    clients = [Client(registry, who, "select * from letter") for who in (ALICE, BOB)]
    assert len(registry) == 1
    transaction = datastore.begin(0)
    replace_rules(datastore, [RowLevelSecurityDef(OWN_LETTERS)])
    transaction.commit()
    assert finish(registry.recompile_in_steps()) == {client.actor for client in clients}
    assert commit(registry, clients, letter=([], [(2, BOB, ALICE)])) == []


@pytest.mark.parametrize(
    ("rule", "text"), [(OWN_LETTERS, "select * from letter"), (ROOMS_OF_VAULT, "select * from room")]
)
def test_the_row_limit_does_not_say_how_many_rows_are_hidden(rule: str, text: str) -> None:
    datastore = town(rule)
    fill(
        datastore,
        letter=[(1, ALICE, BOB), (2, ALICE, BOB)],
        room=[(1, "cellar")],
        vault=[(BOB, 1), (ALICE, 1)],
        st_var=[("row_limit", (8, 0))],
    )
    actor = SubscriptionActor(Registry(datastore, OWNER), ALICE)
    for ask in (
        lambda: run_sql(text, datastore, actor.caller),
        lambda: finish(actor.one_off(text)),
        lambda: finish(actor.subscribe_set(1, [text])),
    ):
        with pytest.raises(QueryError) as refusal:
            ask()
        assert str(refusal.value) == "Estimated cardinality exceeds limit (0 rows)"
