"""Joins, rules and changes by SQL as unmodified npm SDKs see them; at the end their caches are what SQL answers."""

from collections.abc import Iterator

import pytest

from tests.interop.clients import Connect, Database, connecting
from tests.interop.processes import SDKS, Server, serve

pytestmark = pytest.mark.slow

FOREIGN_CALLS = {
    "2.10.1": ("Transaction", "Transaction"),
    "2.0.0": ("UnknownTransaction", "UnknownTransaction"),
    "1.12.0": ("UnknownTransaction", "Reducer"),
    "1.3.3": ("UnknownTransaction", "Reducer"),
}
"""What an SDK takes another client's call for, of modules as they are and of modules of before V10."""
SEEN = "SELECT e.* FROM entity e JOIN look l ON e.id = l.entity WHERE l.viewer = :sender"
WEAK = "SELECT a.* FROM actor a JOIN actor b ON a.zone = b.zone WHERE b.hp = 5"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def database(server: Server) -> Database:
    return Database(server, "sight")


@pytest.fixture(params=SDKS, ids=lambda version: f"npm {version}")
def version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture
def connect(version: str) -> Iterator[Connect]:
    with connecting(version, "sight") as connect:
        yield connect


ENTITIES = "INSERT INTO entity (id, name, x) VALUES (1, 'lamp', 0), (2, 'door', 0), (3, 'well', 0)"
LAMP, DOOR = {"id": 1, "name": "lamp", "x": 0}, {"id": 2, "name": "door", "x": 0}


def test_a_row_stays_as_long_as_one_partner_does(database: Database, connect: Connect) -> None:
    database.sql(ENTITIES)
    ann, bob = connect(database), connect(database)
    bob.call("look", entity=2)
    for client in (ann, bob):
        client.subscribe("seen", SEEN)
    assert ann.told() == []
    assert bob.told() == [("insert", DOOR)]

    ann.call("look", entity=1)
    ann.call("look", entity=1)
    assert ann.told() == [("insert", LAMP)]
    bob.call("look", entity=1)
    assert bob.told() == [("insert", LAMP)]
    bob.call("move", entity=1, x=7)
    lamp = {**LAMP, "x": 7}
    assert ann.wait("update", "entity", id=1)["old"] == LAMP
    assert (ann.told(), bob.told()) == ([], [("update", lamp)])

    ann.call("lookAway", entity=1)
    assert ann.told() == []
    assert ann.rows("entity") == [lamp]
    ann.call("lookAway", entity=1)
    assert ann.told() == [("delete", lamp)]
    assert ann.rows("entity") == []

    database.sql("UPDATE look SET entity = 3 WHERE entity = 2")
    bob.wait("insert", "entity", id=3)
    database.sql("DELETE FROM entity WHERE id = 1")
    bob.wait("delete", "entity", id=1)
    assert bob.told() == [("delete", DOOR)]
    ann.call("look", entity=3)
    for client in (ann, bob):
        assert [row["name"] for row in client.rows("entity")] == ["well"]
        client.check("entity", SEEN)


def test_initial_rows_with_many_partners_are_told_once(database: Database, connect: Connect) -> None:
    database.sql(ENTITIES)
    ann = connect(database)
    for entity in (1, 1, 1, 2):
        ann.call("look", entity=entity)
    ann.subscribe("seen", SEEN)
    assert sorted(row["name"] for event, row in ann.told() if event == "insert") == ["door", "lamp"]
    ann.call("lookAway", entity=1)
    ann.call("lookAway", entity=1)
    assert ann.told() == []
    ann.unsubscribe("seen")
    assert sorted(row["name"] for event, row in ann.told() if event == "delete") == ["door", "lamp"]
    assert ann.rows("entity") == []


def test_partners_of_one_transaction_are_counted(database: Database, connect: Connect) -> None:
    database.sql(ENTITIES)
    ann = connect(database)
    ann.subscribe("seen", SEEN)
    database.sql(f"INSERT INTO look (id, viewer, entity) VALUES (0, 0x{ann.identity}, 1), (0, 0x{ann.identity}, 1)")
    ann.wait("insert", "entity", id=1)
    ann.call("look", entity=4)
    ann.call("look", entity=4)
    database.sql("INSERT INTO entity (id, name, x) VALUES (4, 'moon', 0)")
    ann.wait("insert", "entity", id=4)
    for entity in (1, 4):
        ann.call("lookAway", entity=entity)
    assert ann.told() == []
    ann.check("entity", SEEN)
    database.sql("UPDATE look SET entity = 2 WHERE entity < 5")
    ann.wait("insert", "entity", id=2)
    assert sorted(row["id"] for event, row in ann.told() if event == "delete") == [1, 4]
    ann.call("lookAway", entity=2)
    assert ann.told() == []
    assert ann.rows("entity") == [DOOR]
    ann.check("entity", SEEN)


def test_a_self_join_with_a_constant_on_one_side(database: Database, connect: Connect) -> None:
    database.sql("INSERT INTO actor (id, zone, hp) VALUES (1, 1, 5), (2, 1, 9), (3, 2, 9)")
    ann = connect(database)
    ann.subscribe("weak", WEAK)
    assert sorted(row["id"] for _, row in ann.told()) == [1, 2]
    database.sql("INSERT INTO actor (id, zone, hp) VALUES (4, 1, 8)")
    ann.wait("insert", "actor", id=4)
    database.sql("UPDATE actor SET hp = 5 WHERE id = 3")
    ann.wait("insert", "actor", id=3)
    database.sql("UPDATE actor SET hp = 5 WHERE id = 2")
    ann.wait("update", "actor", id=2)
    database.sql("UPDATE actor SET zone = 2 WHERE id = 1")
    ann.wait("update", "actor", id=1)
    assert ann.told() == []
    ann.check("actor", WEAK)
    database.sql("UPDATE actor SET hp = 6 WHERE id = 2")
    ann.wait("delete", "actor", id=2)
    ann.wait("delete", "actor", id=4)
    assert ann.told() == []
    assert [row["id"] for row in ann.rows("actor")] == [1, 3]
    ann.check("actor", WEAK)


NOTES = "SELECT * FROM note"


def test_everyone_sees_what_the_rules_give_them(database: Database, connect: Connect) -> None:
    database.sql("INSERT INTO note (id, room, text) VALUES (1, 1, 'one'), (2, 1, 'two'), (3, 2, 'three')")
    ann, bob, owner = connect(database), connect(database), connect(database, token=database.server.operator)
    ann.call("sit", room=1)
    for client in (ann, bob, owner):
        client.subscribe("notes", NOTES)
        client.check("note", NOTES)
    assert [len(client.rows("note")) for client in (ann, bob, owner)] == [2, 0, 3]
    for client in (ann, bob, owner):
        client.told()

    ann.call("passSeat", to=bob.identity)
    assert sorted(row["id"] for event, row in ann.told() if event == "delete") == [1, 2]
    assert sorted(bob.wait("insert", "note")["row"]["id"] for _ in range(2)) == [1, 2]
    database.sql(f"UPDATE seat SET who = 0x{ann.identity} WHERE who = 0x{bob.identity}")
    assert sorted(ann.wait("insert", "note")["row"]["id"] for _ in range(2)) == [1, 2]
    assert sorted(bob.wait("delete", "note")["row"]["id"] for _ in range(2)) == [1, 2]

    bob.call("sit", room=2)
    assert bob.told() == [("insert", {"id": 3, "room": 2, "text": "three"})]
    database.sql("UPDATE note SET room = 2 WHERE id = 2")
    ann.wait("delete", "note", id=2)
    bob.wait("insert", "note", id=2)
    owner.wait("update", "note", id=2)
    database.sql("UPDATE note SET text = 'ONE' WHERE id = 1")
    ann.wait("update", "note", id=1, text="ONE")
    owner.wait("update", "note", id=1, text="ONE")
    assert [client.told() for client in (ann, bob, owner)] == [[], [], []]
    for client, ids in ((ann, [1]), (bob, [2, 3]), (owner, [1, 2, 3])):
        assert [row["id"] for row in client.rows("note")] == ids
        client.check("note", NOTES)
    bob.unsubscribe("notes")
    assert bob.rows("note") == []


def change_by_sql(database: Database, connect: Connect) -> str:
    """Whoever is subscribed is told of what the owner does over HTTP, the owner's own connection too.

    Return what the SDK takes another client's call for, which comes at the end.
    """
    ann, owner = connect(database), connect(database, token=database.server.operator)
    for client in (ann, owner):
        client.subscribe("all", "SELECT * FROM entity", "SELECT * FROM mark")
    database.sql(ENTITIES)
    database.sql("INSERT INTO mark (entity, text) VALUES (1, 'x'), (1, 'x'), (1, 'y')")
    database.sql("UPDATE entity SET x = 4 WHERE id = 2")
    database.sql("UPDATE mark SET text = 'z' WHERE text = 'x'")
    database.sql("DELETE FROM entity WHERE id < 2")
    database.sql("DELETE FROM entity WHERE id > 100")
    database.sql("INSERT INTO entity (id, name, x) VALUES (9, 'last', 9)")
    for client in (ann, owner):
        last = client.wait("insert", "entity", id=9)
        assert last["why"] in ("Transaction", "UnknownTransaction")
        events = [(event, row.get("name") or row["text"]) for event, row in client.told()]
        assert sorted(events[:5]) == [("insert", name) for name in ("door", "lamp", "well", "x", "y")]
        assert events[5] == ("update", "door")
        assert sorted(events[6:8]) == [("delete", "x"), ("insert", "z")]
        assert events[8:] == [("delete", "lamp")]
        client.check("entity", "SELECT * FROM entity")
        client.check("mark", "SELECT * FROM mark")
    ann.call("move", entity=9, x=1)
    moved = owner.wait("update", "entity", id=9, x=1)
    why: str = moved["why"]
    return why


def test_changes_by_sql_reach_subscribers(database: Database, connect: Connect, version: str) -> None:
    assert change_by_sql(database, connect) == FOREIGN_CALLS[version][0]


def test_changes_by_sql_are_no_call_of_a_reducer(connect: Connect, version: str) -> None:
    """Of modules of before V10 v1 tells who called what; a change by SQL then names no reducer."""
    with serve(program="tests.interop.serve_v9") as server:
        assert change_by_sql(Database(server, "sight"), connect) == FOREIGN_CALLS[version][1]


def test_a_row_of_two_queries_stays_until_both_are_gone(database: Database, connect: Connect) -> None:
    database.sql(ENTITIES)
    database.sql("INSERT INTO mark (entity, text) VALUES (1, 'x'), (1, 'y'), (2, 'x')")
    marks_of_1, marks_x = "SELECT * FROM mark WHERE entity = 1", "SELECT * FROM mark WHERE text = 'x'"
    ann = connect(database)
    ann.call("look", entity=1)
    ann.call("look", entity=2)
    ann.told()
    ann.subscribe("first", SEEN, marks_of_1)
    ann.subscribe("second", "SELECT * FROM entity WHERE id < 2", marks_x, marks_of_1)
    assert sorted(row.get("name") or row["text"] for event, row in ann.told() if event == "insert") == [
        "door", "lamp", "x", "x", "y"
    ]  # fmt: skip
    ann.check("mark", marks_of_1, marks_x)

    ann.call("lookAway", entity=1)  # of the lamp only the first query knew by looking
    assert ann.told() == []
    database.sql("UPDATE mark SET text = 'y' WHERE entity = 2")  # leaves one query, was in no other
    ann.wait("delete", "mark", entity=2)
    database.sql("UPDATE mark SET text = 'x!' WHERE text = 'x'")  # leaves one query, stays in the other
    ann.wait("insert", "mark", text="x!")
    ann.wait("delete", "mark", text="x")
    assert ann.told() == []
    ann.check("mark", marks_of_1, marks_x)
    ann.check("entity", SEEN, "SELECT * FROM entity WHERE id < 2")

    ann.unsubscribe("first")
    assert ann.told() == [("delete", DOOR)]
    ann.check("mark", marks_of_1, marks_x)
    ann.check("entity", "SELECT * FROM entity WHERE id < 2")
    database.sql("INSERT INTO mark (entity, text) VALUES (1, 'new')")
    ann.wait("insert", "mark", text="new")
    ann.unsubscribe("second")
    assert sorted(event for event, _ in ann.told()) == ["delete"] * 4
    assert (ann.rows("mark"), ann.rows("entity")) == ([], [])


def test_a_refused_query_leaves_the_others_alive(database: Database, connect: Connect) -> None:
    database.sql(ENTITIES)
    ann = connect(database)
    ann.call("look", entity=1)
    ann.subscribe("seen", SEEN)
    ann.told()
    for query, text in (
        ("SELECT e.* FROM entity e JOIN mark m ON e.name = m.text", "Subscriptions require indexes on join columns"),
        ("SELECT n.* FROM note n JOIN seat s ON n.room = s.room", "no such table: `seat`"),
        ("SELECT e.id FROM entity e", "Column projections are not supported in subscriptions"),
    ):
        ann.driver.do("subscribe", name="bad", queries=["SELECT * FROM mark", query])
        error = ann.driver.wait("subscription error")["text"]
        assert text in error
        assert f"executing: `{query}`" in error
    ann.call("look", entity=2)
    assert ann.told() == [("insert", DOOR)]
    ann.check("entity", SEEN)
