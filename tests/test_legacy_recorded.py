"""Sessions of the real servers 0.8.2, 0.10.1 and 0.11.1, held again.

0.11.1 at the root, the others below their prefix. What differs is listed by step, each with the sentence of the
specification ("we: ...") that says so.
"""

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.legacy_probe import MAPS, probe
from tests.legacy_replay import Excepted, Replay, replay, steps_of
from tests.legacy_sessions import ANY, Rows, Told

LANGUAGE = "06 4.1: we: the 1.x/2.x language, additionally ...; literals in the select list are refused"
JOINS = "06 4.1: Reference bug; we: the bag of section 4"
MATCHES = "06 5.1: we, on 0.x connections: a row is sent only when its number of matches leaves or reaches zero"
TABLES = "03 10: system tables are those of this server"
SOCKETS = "03 2: we: as 02: cut the older socket (its disconnect completes) before the new one's connect reducer"
LATER = "03 7: the module is instantiated anew after a trap; the next call waits (here it does not)"
EVERYWHERE = "06 3: SELECT * FROM * in any letters: accept the liberal form everywhere"
NO_PROJECTION = "03 7: an update that does not change the projection (we: nothing)"
DIALECT = "03 0.3: a frame of the other generation: Close 1011 with a reason that names the path"
BEARER = "03 2: 0.7-0.11 know no Bearer scheme (we: accept it)"
V1 = "02: this server speaks the protocols of 1.x and 2.x at /v1, too"
NEVER = "03 7: names that start and end with __: 0.8 calls them; we: never"
ERRORS = "03 7: 0.7/0.8 only log it; we: so in all dialects (failed update, old subscription kept)"
UPDATES = "03 2: 0.8 closes at every update; we: as 0.11 for all"
FORM = "03 0.3: the whole HTTP API lies below each prefix in its 0.11 form"
LITERALS = "06 4.1: Reference bug: a comparison whose left side is a literal is true; we: compare"
SHOW = "06 4.1: we: the 1.x/2.x language (others than the owner may SHOW)"
PAIRS = "03 1: we: such a map is [[key,value],...] in every JSON, both ways"
NO_NAME = "03 8: we: nothing stays (of a failed first publish)"
OLD_PROGRAM = "03 8: we: 530 and the whole publish is rolled back, old program and schema stay"
LENGTHS = "03 1: we: exactly 32 and 16, else `invalid arguments ...`"
AT_ONCE = "03 7: the recorded server told of this call with the next one; here every call is answered at once"
BLOCK = "03 10: after a restart auto-inc goes on behind the allocated block (here it ends with 4096, as in 2.x)"
TOLD = "03 2: we: so for modules of ABI 9 (the connection goes on); the log tells of every reducer that fails"


def at(sentence: str, *places: int, **how: Any) -> dict[int, Excepted]:
    """Return an exception for each of these steps."""
    return dict.fromkeys(places, Excepted(sentence, **how))


def as_pairs(told: Told) -> Told:
    """Return a message with a row of the first Kinds of `extra_0.11.1`, whose maps m4 and m6 are lists of pairs."""
    rows = told.tables["Kinds"]["inserts"]
    assert [(row[4], row[6]) for row in rows] == [({}, {})]
    inserts = Rows([*row[:4], [], row[5], [], *row[7:]] for row in rows)
    return told._replace(tables={"Kinds": {"deletes": Rows(), "inserts": inserts}})


def behind_our_block(read: Any) -> Any:
    """Return what was read after the restart of `crash_restart_0.11.1` with the id that comes next here."""
    items, *others = read
    return [Rows([4097 if row[0] == 4098 else row[0], *row[1:]] for row in items), *others]


def one_client(read: Any) -> Any:
    """Return what was read of st_client and another table, where the columns of st_client are those of this server."""
    clients, users = read
    return [Rows([ANY] for _ in clients), users]


def one_client_row(told: Told) -> Told:
    """Return a message whose row of st_client has the columns of this server."""
    assert len(told.tables["st_client"]["inserts"]) == 1
    clients = {"deletes": Rows(), "inserts": Rows([[ANY, ANY]])}
    return told._replace(tables=told.tables | {"st_client": clients})


def with_failures(level: str, text: str, lines_later: int, read: list[list[str]]) -> list[list[str]]:
    """Return the last lines of a log that tells of a failure so many lines after each line with this text."""
    places = [place + lines_later for place, line in enumerate(read) if line[1] == text]
    told = list(read)
    for place in reversed(places):
        told.insert(place, [level, ANY])
    return told[-len(read) :]


def nothing_extra(told: Told, socket: Any) -> bool:
    return False


def extra_of_0_8(told: Told, socket: Any) -> bool:
    """Tell whether this server alone tells a client of 0.8 something.

    "we: send the empty committed update to the caller in all dialects", "we: so in all dialects" of errors of
    subscriptions, "we: broadcast in all dialects" of changes by SQL (03 sections 7 and 10).
    """
    if told.kind != "transaction":
        return False
    fields = told.fields
    is_own = (fields["caller"], fields["address"]) == (socket.identity, socket.address)
    return (is_own and fields["status"] == "committed" and not told.tables) or fields["reducer"] in ("<none>", "")


OTHER_SOCKETS = (283, 284, 289, 293, 294, 296, 298, 304, 308, 325, 326)
"""Steps of the long text session of 0.11.1 that go another way because older sockets are cut."""


def of_0_11(shift: int, last_shift: int) -> dict[int, Excepted]:
    """Return the exceptions of the long session of 0.11.1, whose steps the binary one counts otherwise."""

    def places(*numbers: int) -> list[int]:
        return [number - shift for number in numbers]

    return (
        at(TABLES, *places(142, 231))
        | at(LANGUAGE, *places(148, 150, 157, 170, 174, 176))
        | at(EVERYWHERE, *places(164))
        | at(MATCHES, *places(203, 206), is_told=False)
        | at(JOINS, *places(223, 225))
        | at(SHOW, *places(233))
        | at(SOCKETS, *(number - last_shift for number in OTHER_SOCKETS))
    )


EXCEPTIONS: dict[str, dict[int, Excepted]] = {
    "ws_text_0.11.1": of_0_11(0, 0) | at(LATER, 45, is_early=True),
    "ws_bin_0.11.1": of_0_11(7, 9),
    "ws_text_0.10.1": at(FORM, 102)
    | at(TABLES, 177)
    | at(LANGUAGE, 184, 191, 194)
    | at(EVERYWHERE, 199)
    | at(DIALECT, 277)
    | at(SOCKETS, 312, 313, 316, 319, 320, 322, 325, *range(352, 359), 362),
    "ws_bin_0.10.1": at(FORM, 92)
    | at(TABLES, 167)
    | at(LANGUAGE, 174, 181, 184)
    | at(EVERYWHERE, 189)
    | at(DIALECT, 259)
    | at(SOCKETS, 290, 291, 294, 297, 298, 300, 303, 330, 335, 336, 340),
    "ws_text_0.8.2": at(NEVER, 51, 80, *range(89, 94), 197)
    | at(ERRORS, 131, 138, 145, 152, 156, 166, 173, 187)
    | at(TABLES, 177)
    | at(LANGUAGE, 184, 191, 201, 203, 205)
    | at(EVERYWHERE, 199)
    | at(DIALECT, 277)
    | at(SOCKETS, 313, 317, 319, 320)
    | at(UPDATES, 325, 327)
    | at(FORM, 103, 335, 343)
    | at(NO_PROJECTION, 351),
    "ws_bin_0.8.2": at(NEVER, 51, 70, *range(79, 84), 187)
    | at(ERRORS, 121, 128, 135, 142, 146, 156, 163, 177)
    | at(TABLES, 167)
    | at(LANGUAGE, 174, 181, 191, 193, 195)
    | at(EVERYWHERE, 189)
    | at(DIALECT, 259)
    | at(SOCKETS, 291, 295, 297, 298)
    | at(UPDATES, 303, 305)
    | at(FORM, 93, 313, 321)
    | at(NO_PROJECTION, 329, 330, 335),
    "ws_handshake_0.11.1": at(BEARER, 46) | at(V1, 67) | at(DIALECT, 102, 106, 306),
    "subscription_literals_0.11.1": at(LITERALS, 8),
    "python_sdk_0.7.0_vs_0.8.2_sync": {},
    "python_sdk_0.7.0_vs_0.8.2_sync_anonymous": {},
    "python_sdk_0.7.0_vs_0.8.2_official_bindings": {},
    "python_sdk_0.7.0_vs_0.8.2_async": {},
    "python_sdk_0.7.0_vs_0.10.1_sync": {},
    "rust_sdk_0.11.1_vs_0.11.1": {},
    "cli_subscribe_0.11.1": {},
    "extra_0.11.1": at(PAIRS, 15, 16, 17, 41)
    | {place: Excepted(PAIRS, instead=as_pairs) for place in (10, 19, 22, 25, 28, 31, 34)},
    "misc_0.11.1": at(NO_NAME, 1, 2, 6)
    | at(OLD_PROGRAM, 11, 12)
    | at(LENGTHS, 30, 32, 47, 48)
    | at(AT_ONCE, 36, is_early=True),
    "crash_restart_0.11.1": {8: Excepted(TABLES, instead=one_client), 13: Excepted(BLOCK, instead=behind_our_block)},
    "publish_variants_0.11.1": {
        116: Excepted(TOLD, instead=partial(with_failures, "Error", "disconnected:", 0)),
        124: Excepted(TOLD, instead=partial(with_failures, "Panic", "disconnected:", 0)),
        130: Excepted(TABLES, instead=one_client_row),
        132: Excepted(TOLD, instead=partial(with_failures, "Error", "connected:", 2)),
    },
    "joins_0.11.1": at(JOINS, 16, 22, 34, 46, 58, 64, 70, 76, 82)
    | at(LANGUAGE, 14, 20, 26, 32, 44, 56, 62, 68, 80, 86)
    | at(MATCHES, 106, 110, 112, 114, 137, is_told=False),
}
MISCELLANEOUS = {
    "<10084 bytes>": probe("fail_init", variant="fail_init"),
    "<10237 bytes>": probe("fail_update", variant="fail_update"),
    "<10262 bytes>": probe("update_message", variant="update_message"),
    "<10380 bytes>": probe("add_table", variant="add_table"),
}
FAILING = {
    "<10199 bytes>": probe("fail_connect", variant="fail_connect"),
    "<10161 bytes>": probe("trap_connect", variant="trap_connect"),
    "<10183 bytes>": probe("fail_disconnect", variant="fail_disconnect"),
}
HOW: dict[str, dict[str, Any]] = {
    "ws_handshake_0.11.1": {"published": "pUUU", "foreign": ("7",), "expired": ("8",)},
    "python_sdk_0.7.0_vs_0.8.2_sync": {"published": "sUUU", "swapped": (23,)},
    "python_sdk_0.7.0_vs_0.8.2_sync_anonymous": {"published": "sUUU"},
    "python_sdk_0.7.0_vs_0.8.2_official_bindings": {"published": "sUUU"},
    "python_sdk_0.7.0_vs_0.8.2_async": {"published": "sUUU", "swapped": (16,)},
    "python_sdk_0.7.0_vs_0.10.1_sync": {"published": "sUUU"},
    "rust_sdk_0.11.1_vs_0.11.1": {
        "published": "sUUU",
        "owner": "7914931113e02c35cb82a3ae7c28a39a5ce8b5f3fc0634b20d88ffec6d96ee93",
    },
    "cli_subscribe_0.11.1": {
        "published": "sUUU",
        "called": ((0, "add_item", '[1,"apple",3]'), (5, "set_qty", "[1,9]"), (5, "send_message", '["while"]')),
    },
    "extra_0.11.1": {"variants": {"<9456 bytes>": probe("maps", MAPS)}, "reads": True},
    "crash_restart_0.11.1": {"reads": True, "waits": {9: 1.0, 13: 3.5}},
    "publish_variants_0.11.1": {"variants": FAILING, "reads": True, "start": 110},
    "misc_0.11.1": {"variants": MISCELLANEOUS, "reads": True},
    "ws_text_0.8.2": {"foreign": ("3",)},
    "ws_bin_0.8.2": {"foreign": ("3",)},
    "ws_text_0.10.1": {"foreign": ("3",)},
    "ws_bin_0.10.1": {"foreign": ("3",)},
}


def hold(name: str) -> Replay:
    """Hold a session again."""

    async def main() -> Replay:
        version, _ = steps_of(name)
        is_extra = extra_of_0_8 if version.startswith("0.8") else nothing_extra
        return await replay(name, EXCEPTIONS.get(name, {}), is_extra, **HOW.get(name, {}))

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_recorded_sessions_go_the_same_way(name: str) -> None:
    session = hold(name)
    assert len(session.steps) > 10
    assert session.differences == []
    assert session.exceptions.keys() == session.used
