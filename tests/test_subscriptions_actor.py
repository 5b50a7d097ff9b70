from functools import partial

import pytest

from stdb.errors import QueryError
from stdb.sats.types import STRING, U32
from stdb.sql.work import finish
from stdb.subscriptions.actor import EVENT_TABLE_TEXT
from tests.subscriptions_world import ALICE, BOB, OWNER, World, rows_of, seen_by

A, B = "SELECT * FROM bag WHERE a = 1", "SELECT * FROM bag WHERE b = 2"
CLIENT_TEXT = f"(Identity({'02' * 32}), ConnectionId({'00' * 15}01))"


@pytest.fixture
def world() -> World:
    world = World()
    world.insert("bag", (1, 1), (1, 2), (3, 2))
    return world


# Query sets.


def test_a_query_set_begins_with_all_rows_of_each_query_in_order(world: World) -> None:
    rows = finish(world.client().subscribe_set(7, [B, A]))
    assert rows_of(world, rows) == [("bag", [(1, 2), (3, 2)], []), ("bag", [(1, 1), (1, 2)], [])]


def test_a_query_over_an_empty_table_is_left_out_but_one_without_matches_is_not(world: World) -> None:
    rows = finish(
        world.client().subscribe_set(7, ["SELECT * FROM item", "SELECT * FROM bag WHERE a = 9", "SELECT * FROM ping"])
    )
    assert rows_of(world, rows) == [("bag", [], [])]


def test_the_same_text_twice_in_a_set_counts_once(world: World) -> None:
    client = world.client()
    assert len(finish(client.subscribe_set(1, [A, f"  {A}\n", A]))) == 1
    update = seen_by(world.tell(world.insert("bag", (1, 9))), client)
    assert update is not None
    assert [(each.query_set_id, rows_of(world, each.fragments)) for each in update.sets] == [
        (1, [("bag", [(1, 9)], [])])
    ]


def test_another_spelling_is_another_query(world: World) -> None:
    client = world.client()
    assert len(finish(client.subscribe_set(1, ["SELECT * FROM bag", "select * from bag", "SELECT  * FROM bag"]))) == 3
    update = seen_by(world.tell(world.insert("bag", (9, 9))), client)
    assert update is not None
    assert len(update.sets[0].fragments) == 3
    assert len(set(map(id, update.sets[0].fragments))) == 1, "whole-table queries share one fragment"


def test_two_sets_with_one_query_are_independent(world: World) -> None:
    client = world.client()
    assert finish(client.subscribe_set(2, [A]))
    assert finish(client.subscribe_set(1, [A])), "rows come again"
    update = seen_by(world.tell(world.insert("bag", (1, 9))), client)
    assert update is not None
    assert [each.query_set_id for each in update.sets] == [1, 2]
    assert finish(client.unsubscribe_set(2)) is not None
    update = seen_by(world.tell(world.insert("bag", (1, 8))), client)
    assert update is not None
    assert [each.query_set_id for each in update.sets] == [1]


def test_an_id_in_use_is_refused_and_its_set_stays(world: World) -> None:
    client = world.client()
    finish(client.subscribe_set(1, [A]))
    with pytest.raises(QueryError) as refusal:
        finish(client.subscribe_set(1, [B]))
    assert str(refusal.value) == f"Subscription with id QuerySetId {{ id: 1 }} already exists for client: {CLIENT_TEXT}"
    assert seen_by(world.tell(world.insert("bag", (1, 9))), client) is not None
    assert len(world.registry) == 1


def test_an_unknown_id_is_refused(world: World) -> None:
    client = world.client()
    for unsubscribe in (client.unsubscribe_set, client.unsubscribe_single, client.unsubscribe_multi):
        with pytest.raises(QueryError) as refusal:
            finish(unsubscribe(77))
        assert str(refusal.value) == f"Subscription not found: ({CLIENT_TEXT}, QuerySetId {{ id: 77 }})"


def test_one_bad_query_fails_the_set_and_frees_its_id(world: World) -> None:
    client = world.client()
    with pytest.raises(QueryError) as refusal:
        finish(client.subscribe_set(1, [A, " SELECT * FROM nope "]))
    assert str(refusal.value) == (
        "no such table: `nope`. If the table exists, it may be marked private., executing: `SELECT * FROM nope`"
    )
    assert len(world.registry) == 0
    finish(client.subscribe_set(1, [A]))


def test_unsubscribing_returns_the_current_rows_if_wanted(world: World) -> None:
    client = world.client()
    finish(client.subscribe_set(1, [A, "SELECT * FROM ping"]))
    world.insert("bag", (1, 9))
    dropped = finish(client.unsubscribe_set(1, send_dropped_rows=True))
    assert dropped is not None
    assert rows_of(world, dropped) == [("bag", [], [(1, 1), (1, 2), (1, 9)])]
    finish(client.subscribe_set(1, [A]))
    assert finish(client.unsubscribe_set(1, send_dropped_rows=False)) is None
    assert world.tell(world.insert("bag", (1, 8))).others == []


def test_an_empty_set_is_accepted(world: World) -> None:
    client = world.client()
    assert finish(client.subscribe_set(1, [])) == []
    assert finish(client.unsubscribe_set(1)) == []


def test_every_set_of_a_batch_succeeds_or_fails_alone(world: World) -> None:
    client = world.client()
    finish(client.subscribe_set(3, [A]))
    results = finish(client.subscribe_batch([(1, [A]), (1, [B]), (2, ["x"]), (3, [A]), (4, [])]))
    assert [query_set_id for query_set_id, _ in results] == [1, 1, 2, 3, 4]
    texts = [outcome if isinstance(outcome, str) else len(outcome) for _, outcome in results]
    assert texts == [
        1,
        f"Subscription with id QuerySetId {{ id: 1 }} already exists for client: {CLIENT_TEXT}",
        "sql parser error: Expected an SQL statement, found: x at Line: 1, Column 1, executing: `x`",
        f"Subscription with id QuerySetId {{ id: 3 }} already exists for client: {CLIENT_TEXT}",
        0,
    ]
    finish(client.subscribe_set(2, [A]))
    assert finish(client.subscribe_batch([])) == []


# v1: Single and Multi.


def test_a_multi_sends_only_what_the_connection_does_not_hold_yet(world: World) -> None:
    client = world.client()
    finish(client.subscribe_multi(1, [A]))
    assert rows_of(world, finish(client.subscribe_multi(2, [A, B]))) == [("bag", [(1, 2), (3, 2)], [])]
    assert finish(client.subscribe_multi(3, [A, B])) == []
    update = seen_by(world.tell(world.insert("bag", (1, 9))), client)
    assert update is not None
    assert [(each.query_set_id, len(each.fragments)) for each in update.sets] == [(None, 1)]


def test_only_the_last_reference_drops_rows(world: World) -> None:
    client = world.client()
    finish(client.subscribe_multi(1, [A]))
    finish(client.subscribe_multi(2, [A, B]))
    assert finish(client.unsubscribe_multi(1)) == []
    assert seen_by(world.tell(world.insert("bag", (1, 9))), client) is not None
    dropped = rows_of(world, finish(client.unsubscribe_multi(2)))
    assert dropped == [("bag", [], [(1, 1), (1, 2), (1, 9)]), ("bag", [], [(1, 2), (3, 2)])]
    assert world.tell(world.insert("bag", (1, 8))).others == []


def test_a_single_answers_with_one_fragment_even_over_an_empty_table(world: World) -> None:
    client = world.client()
    assert rows_of(world, [finish(client.subscribe_single(1, "SELECT * FROM item"))]) == [("item", [], [])]
    assert rows_of(world, [finish(client.unsubscribe_single(1))]) == [("item", [], [])]


def test_a_single_whose_query_is_held_already_sends_no_rows_again(world: World) -> None:
    client = world.client()
    finish(client.subscribe_multi(1, [A]))
    assert rows_of(world, [finish(client.subscribe_single(2, A))]) == [("bag", [], [])]
    assert rows_of(world, [finish(client.unsubscribe_single(2))]) == [("bag", [], [])], "the multi still holds it"
    assert rows_of(world, finish(client.unsubscribe_multi(1))) == [("bag", [], [(1, 1), (1, 2)])]


def test_single_and_multi_share_their_ids(world: World) -> None:
    client = world.client()
    finish(client.subscribe_single(1, A))
    with pytest.raises(QueryError, match="already exists"):
        finish(client.subscribe_multi(1, [B]))
    assert rows_of(world, finish(client.unsubscribe_multi(1))) == [("bag", [], [(1, 1), (1, 2)])], (
        "a multi ends a single, too"
    )


def test_a_multi_of_several_queries_is_not_ended_as_a_single(world: World) -> None:
    client = world.client()
    finish(client.subscribe_multi(1, [A, B]))
    with pytest.raises(QueryError, match=r"^Internal error$"):
        finish(client.unsubscribe_single(1))
    assert len(finish(client.unsubscribe_multi(1))) == 2


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_a_blank_text_is_named_as_such(world: World, text: str) -> None:
    client = world.client()
    with pytest.raises(QueryError) as refusal:
        finish(client.subscribe_single(1, text))
    assert str(refusal.value) == f"SubscriptionError: Empty string, executing: `{text}`"
    for subscribe in (client.replace_legacy, partial(client.subscribe_multi, 1)):
        with pytest.raises(QueryError) as refusal:
            finish(subscribe([text]))
        assert str(refusal.value) == "SubscriptionError: Empty string, executing: ``"


def test_event_tables_are_refused_on_v1_but_for_the_legacy_set(world: World) -> None:
    client = world.client()
    for subscribe in (
        lambda: finish(client.subscribe_single(1, "SELECT * FROM ping")),
        lambda: finish(client.subscribe_multi(1, ["SELECT * FROM ping"])),
    ):
        with pytest.raises(QueryError) as refusal:
            subscribe()
        assert str(refusal.value) == EVENT_TABLE_TEXT
    assert finish(client.replace_legacy(["SELECT * FROM ping"])) == []
    update = seen_by(world.tell(world.insert("ping", (1, 1))), client)
    assert update is not None
    assert rows_of(world, update.sets[0].fragments) == [("ping", [(1, 1)], [])]


def test_event_rows_are_told_once_filtered_and_never_kept(world: World) -> None:
    client = world.client()
    finish(client.subscribe_set(1, ["SELECT * FROM ping WHERE a = 1"]))
    update = seen_by(world.tell(world.insert("ping", (1, 1), (1, 1), (2, 2))), client)
    assert update is not None
    (fragment,) = update.sets[0].fragments
    assert fragment.is_event
    assert rows_of(world, [fragment]) == [("ping", [(1, 1)], [])]
    assert finish(world.client().subscribe_set(1, ["SELECT * FROM ping"])) == []
    assert rows_of(world, [finish(client.one_off("SELECT * FROM ping"))]) == [("ping", [], [])]


# The legacy set.


def test_a_legacy_set_replaces_the_one_before_and_tells_all_rows(world: World) -> None:
    client = world.client()
    finish(client.replace_legacy([A]))
    assert rows_of(world, finish(client.replace_legacy([A, B]))) == [
        ("bag", [(1, 1), (1, 2)], []),
        ("bag", [(1, 2), (3, 2)], []),
    ]
    finish(client.replace_legacy([B]))
    assert world.tell(world.insert("bag", (1, 9))).others == []
    assert finish(client.replace_legacy([])) == []
    assert len(world.registry) == 0


def test_a_bad_legacy_set_leaves_the_old_one_in_force(world: World) -> None:
    client = world.client()
    finish(client.replace_legacy([A]))
    with pytest.raises(QueryError, match=r", executing: `SELECT \* FROM nope`$"):
        finish(client.replace_legacy([B, "SELECT * FROM nope"]))
    assert seen_by(world.tell(world.insert("bag", (1, 9))), client) is not None


def test_the_legacy_set_counts_apart_from_multi(world: World) -> None:
    client = world.client()
    finish(client.replace_legacy([A, A]))
    assert len(finish(client.subscribe_multi(1, [A]))) == 1, "its rows come a second time"
    update = seen_by(world.tell(world.insert("bag", (1, 9))), client)
    assert update is not None
    assert [(each.query_set_id, len(each.fragments)) for each in update.sets] == [(None, 2)]


# SELECT * FROM *.


@pytest.mark.parametrize("text", ["SELECT * FROM *", " select\t*\nFrom  * "])
def test_all_tables_stand_for_those_the_caller_may_read(world: World, text: str) -> None:
    world.insert("secret", (1, 1))
    everyone, owner = world.client(BOB), world.client(OWNER)
    for subscribe in (everyone.replace_legacy, partial(everyone.subscribe_multi, 1)):
        assert [name for name, _, _ in rows_of(world, finish(subscribe([text])))] == ["bag"]
    assert [name for name, _, _ in rows_of(world, finish(owner.subscribe_set(1, [text])))] == ["bag", "secret"]
    update = seen_by(world.tell(world.insert("item", (1, ALICE, 1, 1.0))), owner)
    assert update is not None, "a table that was empty is subscribed to as well"
    assert world.tell(world.insert("ping", (1, 1))).others == []


def test_all_tables_and_one_of_them_by_name_is_one_query(world: World) -> None:
    assert len(finish(world.client().subscribe_set(1, ["SELECT * FROM bag", "SELECT * FROM *"]))) == 1


def test_a_single_and_a_one_off_query_do_not_know_all_tables(world: World) -> None:
    text = "sql parser error: Expected identifier, found: * at Line: 1, Column 15"
    with pytest.raises(QueryError) as refusal:
        finish(world.client().subscribe_single(1, "SELECT * FROM *"))
    assert str(refusal.value) == f"{text}, executing: `SELECT * FROM *`"
    with pytest.raises(QueryError) as refusal:
        finish(world.client().one_off("SELECT * FROM *"))
    assert str(refusal.value) == text


# Who asks, and how much.


def test_sender_is_whoever_subscribes(world: World) -> None:
    alice, bob = world.client(ALICE), world.client(BOB)
    world.insert("item", (1, ALICE, 1, 1.0), (2, BOB, 1, 1.0))
    text = "SELECT * FROM item WHERE owner = :sender"
    assert rows_of(world, finish(alice.subscribe_set(1, [text]))) == [("item", [(1, ALICE, 1, 1.0)], [])]
    assert rows_of(world, finish(bob.subscribe_set(1, [text]))) == [("item", [(2, BOB, 1, 1.0)], [])]
    assert len(world.registry) == 2
    evaluation = world.tell(world.insert("item", (3, BOB, 1, 1.0)))
    assert [actor for actor, _ in evaluation.others] == [bob]


def test_a_private_table_is_the_owners_alone_even_after_the_owner_subscribed(world: World) -> None:
    finish(world.client(OWNER).subscribe_set(1, ["SELECT * FROM secret"]))
    with pytest.raises(QueryError, match="no such table: `secret`"):
        finish(world.client(ALICE).subscribe_set(1, ["SELECT * FROM secret"]))


def _set_row_limit(world: World, limit: int) -> None:
    table = world.table("st_var")
    world.transact(lambda _: table.insert(table.schema.codec.encode(("row_limit", (8, limit)))) and None)


def test_the_row_limit_bounds_newly_compiled_queries_of_others_than_the_owner(world: World) -> None:
    _set_row_limit(world, 4)
    client, text = world.client(), "Estimated cardinality (6 rows) exceeds limit (4 rows)"
    for subscribe in (
        lambda: finish(client.subscribe_set(1, [A])),
        lambda: finish(client.subscribe_multi(1, ["SELECT * FROM bag", "select * from bag"])),
        lambda: finish(client.replace_legacy([A])),
        lambda: finish(client.one_off(A)),
    ):
        with pytest.raises(QueryError) as refusal:
            subscribe()
        assert str(refusal.value) == text
    with pytest.raises(QueryError) as refusal:
        finish(client.subscribe_single(1, A))
    assert str(refusal.value) == f"{text}, executing: `{A}`"
    finish(client.subscribe_set(1, ["SELECT * FROM bag"]))
    finish(client.subscribe_set(2, ["select * from bag"]))
    finish(world.client(BOB).subscribe_set(1, ["SELECT * FROM bag", "select * from bag"]))  # held already: free
    finish(world.client(OWNER).subscribe_set(1, [A]))


def test_an_initial_answer_above_the_bound_says_what_to_narrow() -> None:
    world = World(initial_bytes_max=5)
    world.insert("bag", (1, 1), (1, 2), (3, 2))
    with pytest.raises(QueryError, match=r"more than 5 bytes; .*narrow.*`SELECT \* FROM bag`: at least 3 rows"):
        finish(world.client().subscribe_set(1, ["SELECT * FROM bag"]))
    assert len(world.registry) == 0
    finish(world.client().subscribe_set(1, [A]))


@pytest.mark.parametrize("sizes", [[3] * 50, [0] * 7, [600] * 3, [5] * 19 + [900] + [5] * 5, [900] + [5] * 30])
def test_the_bytes_of_rows_of_any_size_are_counted(sizes: list[int]) -> None:
    def world_of(initial_bytes_max: int) -> World:
        world = World({"text": {"columns": {"key": U32, "text": STRING}}}, initial_bytes_max=initial_bytes_max)
        world.insert("text", *((key, "x" * size) for key, size in enumerate(sizes)))
        return world

    exact = sum(size + 8 for size in sizes)
    assert len(finish(world_of(exact).client().subscribe_set(1, ["SELECT * FROM text"]))[0].inserts) == len(sizes)
    with pytest.raises(QueryError, match=f"more than {exact - 1} bytes"):
        finish(world_of(exact - 1).client().subscribe_set(1, ["SELECT * FROM text"]))


def test_a_client_that_left_holds_nothing(world: World) -> None:
    client = world.client()
    finish(client.replace_legacy([A]))
    finish(client.subscribe_set(1, [A, B]))
    finish(client.subscribe_multi(2, [A]))
    client.close()
    assert len(world.registry) == 0
    assert world.tell(world.insert("bag", (1, 9))).others == []
