"""Who is told what on v1: callers, others, light, NoSuccessNotify, calls that did not run (spec 02 section 6.3)."""

from typing import Any

import pytest

from stdb.actors.requests import CallReducer, SubscriptionKind, Unsubscribe
from stdb.actors.sink import OutcomeKind, ReducerOutcome
from stdb.net.protocols import messages_v1
from stdb.net.protocols.dialect import ConnectionOptions
from stdb.net.protocols.wire import Compression
from stdb.sats import bsatn, json
from stdb.subscriptions.fragment import ClientUpdate, Fragment, SetUpdate
from tests.websocket_messages import V9, V10, Spoken, event

CALLER = bytes(range(32))
CONNECTION = bytes(range(16))
COMMITTED = ReducerOutcome(OutcomeKind.COMMITTED)
QUIET = CallReducer(7, "add", b"args", False)
LOUD = CallReducer(7, "add", b"args", True)
TRANSACTION, LIGHT = 1, 2


def update() -> ClientUpdate:
    return ClientUpdate((SetUpdate(None, (Fragment(4096, "person", None, [b"row"], []),)),))


def told() -> Any:
    return event(
        caller=CALLER,
        caller_connection_id=CONNECTION,
        timestamp_us=5,
        reducer_name="add",
        reducer_id=3,
        args=b"args",
        request_id=7,
        needs=9,
        energy=2,
        duration_us=11,
    )


def heard(spoken: Spoken) -> list[Any]:
    """Return the messages that left, decoded."""
    return [bsatn.codec(messages_v1.SERVER_MESSAGE).decode_exact(payload[1:]) for payload in spoken.payloads()]


def spoken(light: bool = False, definition: Any = V10, confirmed: bool | None = None) -> Spoken:
    options = ConnectionOptions(compression=Compression.NONE, light=light, confirmed=confirmed)
    return Spoken("v1.bsatn", options, definition)


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("definition", [V9, V10])
def test_the_caller_is_told_in_full_whatever_it_and_the_module_prefer(light: bool, definition: Any) -> None:
    one = spoken(light, definition)
    one.sink.reducer_result(LOUD, COMMITTED, told(), update())
    ((tag, fields),) = heard(one)
    assert tag == TRANSACTION
    assert fields[0][0] == 0
    assert fields[1:] == (5, CALLER, CONNECTION, ("add", 3, b"args", 7), (2,), 11)


def test_the_caller_is_told_even_when_it_sees_no_rows() -> None:
    one = spoken()
    one.sink.reducer_result(LOUD, COMMITTED, told(), None)
    ((tag, fields),) = heard(one)
    assert (tag, fields[0]) == (TRANSACTION, (0, ([],)))


@pytest.mark.parametrize(
    ("light", "definition", "tag"),
    [(False, V9, TRANSACTION), (True, V9, LIGHT), (False, V10, LIGHT), (True, V10, LIGHT)],
)
def test_others_learn_of_the_call_from_old_modules_unless_light(light: bool, definition: Any, tag: int) -> None:
    one = spoken(light, definition)
    one.sink.update(told(), update())
    ((heard_tag, fields),) = heard(one)
    assert heard_tag == tag
    if tag == LIGHT:
        assert fields[0] == 7
    else:
        assert fields[4] == ("add", 3, b"args", 7)


def test_with_no_success_notify_success_is_told_as_to_others_and_failure_not_at_all() -> None:
    one = spoken()
    one.sink.reducer_result(QUIET, COMMITTED, told(), None)
    for kind in (OutcomeKind.FAILED, OutcomeKind.FAULT, OutcomeKind.OUT_OF_TIME):
        one.sink.reducer_result(QUIET, ReducerOutcome(kind, "no"), told(), None)
    assert heard(one) == []
    one.sink.reducer_result(QUIET, COMMITTED, told(), update())
    ((tag, _),) = heard(one)
    assert tag == LIGHT


@pytest.mark.parametrize("call", [LOUD, QUIET])
def test_a_call_that_did_not_run_is_told_always_with_request_id_0_and_the_long_text(call: CallReducer) -> None:
    one = spoken()
    outcome = ReducerOutcome(OutcomeKind.NOT_RUN, "short", "short: long: longest")
    one.sink.reducer_result(call, outcome, told(), None)
    assert heard(one) == [
        (TRANSACTION, ((1, "short: long: longest"), 5, CALLER, CONNECTION, ("add", 3, b"", 0), (0,), 0))
    ]


@pytest.mark.parametrize("kind", [OutcomeKind.FAILED, OutcomeKind.FAULT])
def test_a_failed_call_is_told_with_its_text(kind: int) -> None:
    one = spoken()
    one.sink.reducer_result(LOUD, ReducerOutcome(kind, "name must not be empty"), told(), None)
    ((_, fields),) = heard(one)
    assert fields[0] == (1, "name must not be empty")
    assert fields[4] == ("add", 3, b"args", 7)


def test_a_stopped_call_is_out_of_energy() -> None:
    one = spoken()
    one.sink.reducer_result(LOUD, ReducerOutcome(OutcomeKind.OUT_OF_TIME, "stopped"), told(), None)
    ((_, fields),) = heard(one)
    assert fields[0] == (2, ())


def test_v1_is_unconfirmed_unless_asked() -> None:
    assert spoken().sink.confirmed is False
    assert spoken(confirmed=True).sink.confirmed is True


@pytest.mark.parametrize("kind", [OutcomeKind.COMMITTED, OutcomeKind.FAILED, OutcomeKind.OUT_OF_TIME])
def test_a_confirmed_client_waits_for_results_and_for_all_behind_them(kind: int) -> None:
    one = spoken(confirmed=True)
    one.sink.reducer_result(LOUD, ReducerOutcome(kind, "x"), told(), None)
    one.sink.initial_connection(CALLER, CONNECTION, "token")
    assert one.frames(durable=8) == []
    assert one.sink.waits()
    assert len(one.frames(durable=9)) == 2
    assert not one.sink.waits()


def test_a_confirmed_client_does_not_wait_for_what_did_not_run() -> None:
    one = spoken(confirmed=True)
    one.sink.reducer_result(LOUD, ReducerOutcome(OutcomeKind.NOT_RUN, "no such reducer"), told(), None)
    assert len(one.frames(durable=0)) == 1


def test_two_queries_on_one_table_are_two_updates_of_one_entry() -> None:
    fragments = (
        Fragment(1, "person", None, [b"a"], [b"b"]),
        Fragment(2, "item", None, [b"c"], []),
        Fragment(1, "person", None, [b"a"], []),
    )
    one = spoken()
    one.sink.update(told(), ClientUpdate((SetUpdate(None, fragments),)))
    ((_, (_, (tables,))),) = heard(one)
    assert [(table[0], table[1], table[2], len(table[3])) for table in tables] == [
        (1, "person", 3, 2),
        (2, "item", 1, 1),
    ]


@pytest.mark.parametrize("protocol", ["v1.bsatn", "v1.json"])
def test_a_single_query_still_held_elsewhere_ends_without_rows(protocol: str) -> None:
    one = Spoken(protocol)
    one.sink.unsubscribe_applied(Unsubscribe(SubscriptionKind.SINGLE, 4, 9), (), 0, 11)
    (payload,) = one.payloads()
    if protocol == "v1.json":
        message = json.decode(messages_v1.JSON_SERVER_MESSAGE, json.parse(payload.decode()))
    else:
        message = bsatn.codec(messages_v1.SERVER_MESSAGE).decode_exact(payload[1:])
    assert message == (6, (4, 11, (9,), (0, "", (0, "", 0, []))))
