"""Damage to a database's file and its `-wal`: the exact state or a refusal by name, never other rows (I16)."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.damaged_files import PAGE, Image, images, judge, last_transaction

FRAME = 24 + PAGE
COUNT = 8
EXAMPLES = 50


@pytest.fixture(scope="module")
def made() -> list[Image]:
    found = images()
    assert len(found) == COUNT
    return found


@pytest.fixture(params=[1 << 40, 0], ids=["checked page by page", "too large for that"])
def _checked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Damage must be found without SQLite's check of all pages, too: great files are not checked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stdb.storage.log_reading.CHECKED_BYTES_MAX", request.param)
        yield


CHOICES = st.integers(0, COUNT - 1)
KINDS = st.sampled_from(["bit", "byte", "zeros", "ones", "copy", "swap", "cut", "zero tail"])


PLACES = st.tuples(*[st.integers(0, 1 << 20)] * 4)


def damaged(content: bytes, kind: str, places: tuple[int, ...], unit: int, head: int) -> tuple[bytes, int]:
    """Return damaged content, and where the damage begins. A unit is a page or a frame, behind the head."""
    body = bytearray(content)
    units = (len(body) - head) // unit
    at, value = places[0] % len(body), places[3] % 256
    one, other = (head + unit * (place % units) for place in places[1:3])
    if kind == "bit":
        body[at] ^= 1 << value % 8
    elif kind == "byte":
        body[at] = value
    elif kind in ("zeros", "ones"):
        body[one : one + unit] = (b"\0" if kind == "zeros" else b"\xff") * unit
        at = one
    elif kind in ("copy", "swap"):
        kept = body[one : one + unit]
        body[one : one + unit] = body[other : other + unit]
        if kind == "swap":
            body[other : other + unit] = kept
        at = one if kind == "copy" else min(one, other)
    elif kind == "cut":
        del body[at:]
    else:
        body[at:] = bytes(len(body) - at)
    return bytes(body), at


@given(choice=CHOICES, kind=KINDS, places=PLACES)
@settings(max_examples=EXAMPLES, deadline=None)
@pytest.mark.usefixtures("_checked")
def test_a_damaged_file_gives_the_exact_state_or_is_refused(
    made: list[Image], choice: int, kind: str, places: tuple[int, ...]
) -> None:
    image = made[choice]
    file, _ = damaged(image.file, kind, places, PAGE, 0)
    judge(image, file, image.wal, least=image.end)


@given(choice=CHOICES, kind=KINDS, places=PLACES)
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_damaged_wal_loses_at_most_its_last_transaction_which_may_be_torn(
    made: list[Image], choice: int, kind: str, places: tuple[int, ...]
) -> None:
    image = made[choice]
    if not image.wal:
        return
    wal, at = damaged(image.wal, kind, places, FRAME, 32)
    is_torn = kind in ("cut", "zero tail") or at >= last_transaction(image.wal)
    judge(image, image.file, wal, least=0 if is_torn else image.end)


def test_any_flipped_bit_of_the_head_of_a_wal_is_refused(made: list[Image]) -> None:
    """SQLite takes a `-wal` with a damaged head for none at all: all that is in it would be gone."""
    image = next(image for image in made if image.is_mixed)
    for at in range(32):
        for bit in (0, 7):
            wal = bytearray(image.wal)
            wal[at] ^= 1 << bit
            refusal = judge(image, image.file, bytes(wal), least=image.end)
            assert not refusal or "-wal" in refusal


CHANGES = (
    "UPDATE metadata SET value = value + {n} WHERE name = 'rows_offset'",
    "UPDATE metadata SET value = value - {n} WHERE name = 'rows_offset'",
    "UPDATE metadata SET value = value + {n} WHERE name = 'log_first'",
    "UPDATE metadata SET value = value - {n} WHERE name = 'log_first'",
    "UPDATE metadata SET value = value + {n} WHERE name = 'merging_to'",
    "UPDATE metadata SET value = value - {n} WHERE name = 'merging_to'",
    "UPDATE metadata SET value = 'x' WHERE name = 'rows_offset'",
    "DELETE FROM metadata WHERE name = 'rows_offset'",
    "DELETE FROM metadata WHERE name = 'log_first'",
    "DELETE FROM metadata WHERE name = 'merging_to'",
    "DELETE FROM metadata WHERE name = 'format_version'",
    "INSERT OR REPLACE INTO metadata SELECT 'merging_to', value + {n} FROM metadata WHERE name = 'rows_offset'",
    "UPDATE log SET body = (SELECT body FROM log ORDER BY random() LIMIT 1) WHERE {group}",
    "UPDATE log SET body = zeroblob(length(body)) WHERE {group}",
    "UPDATE log SET body = substr(body, 1, length(body) - {n}) WHERE {group}",
    "UPDATE log SET body = body || body WHERE {group}",
    "UPDATE log SET body = 'text' WHERE {group}",
    "UPDATE log SET count = count + 1 WHERE {group}",
    "UPDATE log SET count = -1 WHERE {group}",
    "UPDATE log SET count = 'text' WHERE {group}",
    "DELETE FROM log WHERE {group}",
    "INSERT INTO log SELECT first_offset + count, count, body FROM log ORDER BY first_offset DESC LIMIT 1",
    "UPDATE log SET first_offset = first_offset + 1000 WHERE {group}",
    "DELETE FROM rows WHERE {row}",
    "UPDATE rows SET row = zeroblob(length(row)) WHERE {row}",
    "UPDATE rows SET row = (SELECT row FROM rows ORDER BY random() LIMIT 1) WHERE {row}",
    "UPDATE rows SET row = NULL WHERE {row}",
    "UPDATE rows SET row = 5 WHERE {row}",
    "UPDATE OR IGNORE rows SET key = key + 1 WHERE {row} AND typeof(key) = 'integer'",
    "UPDATE OR IGNORE rows SET key = 'other' WHERE {row}",
    "UPDATE OR IGNORE rows SET key = NULL WHERE {row}",
    "UPDATE OR IGNORE rows SET key = 1.5 WHERE {row}",
    "UPDATE OR IGNORE rows SET key = x'00' WHERE {row}",
    "UPDATE OR IGNORE rows SET table_id = table_id + 1 WHERE {row}",
    "UPDATE OR IGNORE rows SET crc = crc + 1 WHERE {row}",
    "UPDATE OR IGNORE rows SET crc = NULL WHERE {row}",
    "INSERT OR IGNORE INTO rows SELECT table_id, key || '0', crc, row FROM rows WHERE {row}",
    "UPDATE tables SET count = count + 1 WHERE table_id = (SELECT table_id FROM rows WHERE {row})",
    "UPDATE tables SET crc_sum = 'x' WHERE table_id = (SELECT table_id FROM rows WHERE {row})",
    "DELETE FROM tables WHERE table_id = (SELECT table_id FROM rows WHERE {row})",
    "DELETE FROM tables",
    "DELETE FROM rows",
    "DROP TABLE rows",
    "DROP TABLE log",
)
_GROUP = (
    "first_offset = (SELECT first_offset FROM log ORDER BY first_offset LIMIT 1"
    " OFFSET {n} % max(1, (SELECT count(*) - 1 FROM log)))"
)
"""Not the last one."""
_ROW = (
    "(table_id, key) IN (SELECT table_id, key FROM rows LIMIT 1 OFFSET {n} * 17 % max(1, (SELECT count(*) FROM rows)))"
)


@given(choice=CHOICES, statement=st.sampled_from(CHANGES), n=st.integers(1, 40))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_file_that_is_whole_but_says_something_else_gives_the_exact_state_or_is_refused(
    made: list[Image], choice: int, statement: str, n: int
) -> None:
    """Pages may be lost, old or swapped in such a way that SQLite finds nothing wrong.

    One thing alone cannot be told from a crash that came earlier: that the last groups of the log are gone.
    """

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement.format(n=n, group=_GROUP.format(n=n), row=_ROW.format(n=n)))

    image = made[choice]
    judge(image, image.file, image.wal, least=image.end, change=change)
