"""Answers of v2 and v3 beyond their bytes: outcomes, confirmed reads, order (spec 02 section 8.3)."""

from typing import Any

import pytest

from stdb.actors.requests import CallReducer
from stdb.actors.sink import OutcomeKind, ReducerOutcome
from stdb.net.protocols import messages_v2
from stdb.net.protocols.dialect import ConnectionOptions
from stdb.net.protocols.wire import Compression
from stdb.sats import bsatn
from stdb.sats.types import STRING
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate
from tests.websocket_messages import Spoken, event

CALL = CallReducer(7, "add", b"args")


def spoken(confirmed: bool | None = None) -> Spoken:
    return Spoken("v2.bsatn", ConnectionOptions(compression=Compression.NONE, confirmed=confirmed))


def heard(one: Spoken) -> list[Any]:
    return [bsatn.codec(messages_v2.SERVER_MESSAGE).decode_exact(payload[1:]) for payload in one.payloads()]


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (OutcomeKind.COMMITTED, (0, (b"", ([],)))),
        (OutcomeKind.FAILED, (2, bsatn.codec(STRING).encode("no"))),
        (OutcomeKind.FAULT, (3, "no")),
        (OutcomeKind.NOT_RUN, (3, "no")),
        (OutcomeKind.OUT_OF_TIME, (3, "no")),
    ],
)
def test_every_outcome_has_one_reducer_result(kind: int, result: Any) -> None:
    one = spoken()
    one.sink.reducer_result(CALL, ReducerOutcome(kind, "no", "chain"), event(timestamp_us=5, needs=3), None)
    assert heard(one) == [(6, (7, 5, result))]


def test_v2_and_v3_are_confirmed_unless_asked() -> None:
    assert Spoken("v2.bsatn").sink.confirmed is True
    assert Spoken("v3.bsatn").sink.confirmed is True
    assert spoken(confirmed=False).sink.confirmed is False


def test_results_and_updates_wait_for_durability_failures_only_for_their_turn() -> None:
    one = spoken()
    failed = ReducerOutcome(OutcomeKind.FAILED, "no")
    one.sink.reducer_result(CALL, failed, event(needs=5), None)
    assert len(one.frames(durable=0)) == 1
    one.sink.reducer_result(CALL, ReducerOutcome(OutcomeKind.COMMITTED), event(needs=5), None)
    one.sink.reducer_result(CALL, failed, event(needs=5), None)
    one.sink.update(event(needs=6), update())
    assert one.frames(durable=4) == []
    assert len(one.frames(durable=5)) == 2
    assert len(one.frames(durable=6)) == 1


def test_an_unconfirmed_client_waits_for_nothing() -> None:
    one = spoken(confirmed=False)
    one.sink.reducer_result(CALL, ReducerOutcome(OutcomeKind.COMMITTED), event(needs=5), update())
    one.sink.update(event(needs=6), update())
    assert len(one.frames(durable=0)) == 2


def update() -> ClientUpdate:
    return ClientUpdate((SetUpdate(1, (Fragment(1, "person", None, [b"row"], []),)),))


def test_tables_of_a_set_are_sorted_by_name_and_queries_keep_their_order() -> None:
    fragments = (
        Fragment(1, "person", None, [b"p1"], []),
        Fragment(2, "item", None, [b"i1"], []),
        Fragment(1, "person", None, [], [b"p2"]),
        Fragment(3, "hit", None, [b"h1"], [], is_event=True),
    )
    one = spoken()
    one.sink.update(event(), ClientUpdate((SetUpdate(4, fragments), SetUpdate(9, fragments[:1]))))
    ((tag, (sets,)),) = heard(one)
    assert tag == 4
    assert [set_id for (set_id,), _ in sets] == [4, 9]
    assert [(name, [kind for kind, _ in rows]) for name, rows in sets[0][1]] == [
        ("hit", [1]),
        ("item", [0]),
        ("person", [0, 0]),
    ]


def test_the_rows_of_a_result_are_those_of_the_update_the_others_get() -> None:
    seen = update()
    caller, other = spoken(), spoken()
    caller.sink.reducer_result(CALL, ReducerOutcome(OutcomeKind.COMMITTED), event(), seen)
    other.sink.update(event(), seen)
    ((_, (_, _, (_, (_, inside)))),) = heard(caller)
    ((_, outside),) = heard(other)
    assert inside == outside
