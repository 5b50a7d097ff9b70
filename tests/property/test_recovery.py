"""Recovery after a crash at any moment: invariants I12, I16, I17 and I19 of spec 07 section 12."""

import shutil
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stdb.datastore.datastore import Datastore
from stdb.datastore.delta import Delta
from stdb.datastore.log import MemoryLog
from stdb.datastore.records import encode
from stdb.datastore.recovery import recover
from stdb.errors import StorageError
from stdb.sats.types import STRING, U64
from stdb.storage.log import SqliteLog
from tests.datastore_samples import CONTEXT, make_module, make_table, row, state

ITEM = make_table("item", {"id": U64, "name": STRING}, key="id", btree=("name",), auto=("id",))
OTHER = make_table("other", {"id": U64, "name": STRING}, unique=("name",), auto=("id",))
WAIT_SECONDS_MAX = 30


class Life:
    """A database that writes random transactions and remembers the state after each."""

    def __init__(self) -> None:
        self.datastore = Datastore()
        self.states = [state(self.datastore)]
        """After so many transactions."""
        self.issued: list[dict[str, set[int]]] = [{"item": set(), "other": set()}]
        """Generated values handed out before that, in committed and in rolled-back transactions."""
        self.names = 0
        self.issued_now = {name: set(values) for name, values in self.issued[0].items()}

    def create(self) -> bytes:
        """Create the tables; return the record."""
        transaction = self.datastore.begin(0)
        self.datastore.create_tables(make_module(ITEM, OTHER))
        return self._committed(transaction.commit())

    def step(self, operations: list[tuple[str, int]], rolls_back: bool) -> list[bytes]:
        """Run one transaction; return its record, or nothing when it had no effect."""
        transaction = self.datastore.begin(0)
        for name, number in operations:
            table = self.datastore.table(name)
            rows = sorted(table.rows())
            if number % 3 or not rows:
                self.names += 1
                stored = transaction.insert(table, row(table, 0, f"{number} {self.names}"))
                value = table.schema.codec.decode_exact(stored)[0]
                assert value not in self.issued_now[name], "a generated value came twice"
                self.issued_now[name].add(value)
            else:
                transaction.delete(table, rows[number % len(rows)])
        if rolls_back:
            transaction.rollback()
            return []
        delta = transaction.commit()
        return [] if delta is None else [self._committed(delta)]

    def restart(self, datastore: Datastore) -> None:
        """Go on with a recovered database, which must be the state after one of the prefixes."""
        count = datastore.next_offset
        assert state(datastore) == self.states[count]
        datastore.verify()
        self.datastore = datastore
        del self.states[count + 1 :]
        del self.issued[count + 1 :]
        self.issued_now = {name: set(values) for name, values in self.issued[count].items()}

    def _committed(self, delta: Delta | None) -> bytes:
        assert delta is not None
        self.states.append(state(self.datastore))
        self.issued.append({name: set(values) for name, values in self.issued_now.items()})
        return encode(delta, CONTEXT)


OPERATIONS = st.lists(st.tuples(st.sampled_from(["item", "other"]), st.integers(0, 30)), min_size=1, max_size=5)


class RecoveryMachine(RuleBasedStateMachine):
    """Commits, disks that lag behind, crashes and clean restarts, in memory."""

    @initialize()
    def start(self) -> None:
        self.life = Life()
        self.log = MemoryLog(delayed=True)
        self.log.append_nowait([self.life.create()])

    @rule(
        steps=st.lists(st.tuples(OPERATIONS, st.sampled_from([False, False, True])), max_size=6),
        durable=st.integers(0, 4),
        end=st.sampled_from(["", "crash", "crash", "restart", "twice"]),
        surviving=st.integers(0, 3),
    )
    def live(self, steps: list[tuple[list[tuple[str, int]], bool]], durable: int, end: str, surviving: int) -> None:
        for operations, rolls_back in steps:
            self.log.append_nowait(self.life.step(operations, rolls_back))
        self.log.sync(durable)
        if end == "restart":
            self.log.close()
        elif end:
            promised = self.log.durable
            self.log.crash(surviving)
            assert self.log.durable >= promised
        if end:
            recovered = recover(self.log)
            if end == "twice":  # crashed again at once
                recovered = recover(self.log)
            assert recovered.next_offset == self.log.durable
            if recovered.next_offset == 0:  # not even the tables were durable
                self.start()
            else:
                self.life.restart(recovered)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "life"):
            assert self.life.datastore.next_offset == len(self.life.states) - 1 == self.log.durable + self.log.backlog


TestRecovery = RecoveryMachine.TestCase
TestRecovery.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


@pytest.fixture(scope="module")
def written() -> object:
    """Write a log whose WAL is never moved; return its directory, the states, and how long the WAL was at each."""
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr("stdb.storage.log_writer.IDLE_SECONDS", 10_000.0)
        told: Queue[int] = Queue()
        life, path = Life(), Path(directory) / "a.sqlite"
        log = SqliteLog(path, told.put)
        wal = path.with_name("a.sqlite-wal")
        promised = [(wal.stat().st_size, 0)]
        records = [life.create()]
        for number in range(25):
            log.append_nowait(records)
            while log.backlog:
                told.get(timeout=WAIT_SECONDS_MAX)
            promised.append((wal.stat().st_size, log.durable))
            records = [
                record
                for each in range(number % 3 + 1)
                for record in life.step([("item", number), ("other", number + each)] * (number % 7 + 1), False)
            ]
            records = records or life.step([("item", 1)], False)
        kept = Path(directory) / "kept"
        kept.mkdir()
        for name in ("a.sqlite", "a.sqlite-wal"):
            shutil.copy(Path(directory) / name, kept / name)
        yield kept, life, promised
        log.close()


def recovered(directory: Path, wal: bytes, original: Path) -> Datastore:
    """Open a copy whose WAL is these bytes, and recover."""
    shutil.copy(original / "a.sqlite", directory / "a.sqlite")
    (directory / "a.sqlite-wal").write_bytes(wal)
    log = SqliteLog(directory / "a.sqlite")
    try:
        return recover(log)
    finally:
        log.close()


def test_a_process_cut_right_after_any_commit_comes_back_with_exactly_what_was_committed(
    written: tuple[Path, Life, list[tuple[int, int]]],
) -> None:
    kept, life, promised = written
    wal = (kept / "a.sqlite-wal").read_bytes()
    assert len(promised) == 26
    for size, durable in promised:
        with TemporaryDirectory() as directory:
            datastore = recovered(Path(directory), wal[:size], kept)
            assert datastore.next_offset == durable
            assert state(datastore) == life.states[durable]
            datastore.verify()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_lost_or_torn_end_of_the_wal_leaves_a_prefix_with_all_that_was_promised(
    written: tuple[Path, Life, list[tuple[int, int]]], data: st.DataObject
) -> None:
    kept, life, promised = written
    wal = (kept / "a.sqlite-wal").read_bytes()
    length = data.draw(st.integers(0, len(wal)) | st.sampled_from([size for size, _ in promised]))
    torn = data.draw(st.sampled_from([b"", bytes(5000), b"\xff" * 24, wal[: len(wal) - length]]))
    with TemporaryDirectory() as directory:
        datastore = recovered(Path(directory), wal[:length] + torn, kept)
    assert datastore.next_offset >= max((durable for size, durable in promised if size <= length), default=0)
    assert state(datastore) == life.states[datastore.next_offset]
    datastore.verify()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_to_the_moved_file_is_the_exact_state_or_a_refusal(
    written: tuple[Path, Life, list[tuple[int, int]]], data: st.DataObject
) -> None:
    kept, life, promised = written
    with TemporaryDirectory() as directory:
        clean = Path(directory) / "clean"
        clean.mkdir()
        for name in ("a.sqlite", "a.sqlite-wal"):
            shutil.copy(kept / name, clean / name)
        SqliteLog(clean / "a.sqlite").close()  # moves the WAL into the file
        damaged = bytearray((clean / "a.sqlite").read_bytes())
        kind = data.draw(st.sampled_from(["bit", "zeros", "copy"]))
        at = data.draw(st.integers(0, len(damaged) - 1))
        page = at - at % 4096
        if kind == "bit":
            damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "zeros":
            damaged[page : page + 4096] = bytes(4096)
        else:
            other = data.draw(st.integers(0, len(damaged) // 4096 - 1)) * 4096
            damaged[page : page + 4096] = damaged[other : other + 4096]
        (clean / "a.sqlite").write_bytes(damaged)
        try:
            log = SqliteLog(clean / "a.sqlite")
            try:
                datastore = recover(log)
            finally:
                log.close()
        except StorageError as error:
            refusal = str(error)
        else:
            refusal = ""
            assert datastore.next_offset == promised[-1][1]
            assert state(datastore) == life.states[datastore.next_offset]
    assert not refusal or "a.sqlite" in refusal


@given(
    first=st.lists(st.tuples(OPERATIONS, st.just(False)), min_size=1, max_size=5),
    second=st.lists(st.tuples(OPERATIONS, st.booleans()), max_size=5),
)
@settings(max_examples=15, deadline=None)
def test_a_clean_stop_and_start_loses_nothing(
    first: list[tuple[list[tuple[str, int]], bool]], second: list[tuple[list[tuple[str, int]], bool]]
) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "a.sqlite"
        log, life = SqliteLog(path), Life()
        log.append_nowait([life.create()])
        for steps in (first, second):
            for operations, rolls_back in steps:
                log.append_nowait(life.step(operations, rolls_back))
            log.close()
            log = SqliteLog(path)
            datastore = recover(log)
            assert datastore.next_offset == len(life.states) - 1
            life.restart(datastore)
        log.close()
