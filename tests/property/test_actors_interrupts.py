"""A reducer interrupted at any moment leaves whole tables (issue part 5; DESIGN decision 10)."""

import signal
from time import perf_counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.actors.deadline import SignalDeadline
from stdb.datastore.datastore import Datastore
from stdb.errors import NoSuchRow, ReducerTimeout, UniqueViolation
from stdb.sats.types import I64, STRING, U64
from stdb.schema.model import IndexAlgorithm, IndexDef, ModuleDef, TableDef, UniqueDef
from stdb.testing.modules import FunctionModule, table


def _indexed() -> TableDef:
    from dataclasses import replace

    plain = table("t", {"id": U64, "name": STRING, "group": I64}, primary_key="id", auto_inc=True)
    indexes = (
        *plain.indexes,
        IndexDef("t_name_idx", None, IndexAlgorithm.BTREE, (1,)),
        IndexDef("t_group_idx", None, IndexAlgorithm.BTREE, (2, 1)),
    )
    return replace(plain, indexes=indexes, uniques=(*plain.uniques, UniqueDef("t_name_key", (1,))))


DEFINITION: ModuleDef = FunctionModule([_indexed()], {}).definition


def work(table_: Any, transaction: Any, seed: int) -> None:
    """Change the table without end, calling it directly as modules do."""
    encode = table_.schema.codec.encode
    primary = table_.primary
    number = seed
    while True:
        for _ in range(20):  # about half of the time outside the tables
            number = (number * 1103515245 + 12345) % 2**31
        try:
            match number % 4:
                case 0 | 1:
                    table_.insert(encode((0, f"n{number % 40}", number % 7)))
                case 2:
                    transaction.update(table_, primary, encode((number % 60 + 1, f"n{number % 50}", number % 5)))
                case 3:
                    table_.delete_key(number % 60 + 1)
        except (UniqueViolation, NoSuchRow):
            pass


@settings(max_examples=500, deadline=None)
@given(delay_us=st.integers(20, 2500), seed=st.integers(0, 2**31))
def test_a_reducer_interrupted_at_any_moment_leaves_whole_tables(delay_us: int, seed: int) -> None:
    datastore = DATASTORE
    before = dict(datastore.table("t").stored)
    deadline = SignalDeadline(delay_us / 1e6, lambda frame: frame.f_code is work.__code__)
    previous = signal.signal(signal.SIGALRM, deadline.on_signal)
    transaction = datastore.begin(0)
    deadline.started, deadline.transaction = perf_counter(), transaction
    interrupted = False
    deadline.arm()
    try:
        work(datastore.table("t"), transaction, seed)
    except ReducerTimeout:
        interrupted = True
    finally:
        deadline.transaction = None
        deadline.disarm()
        signal.signal(signal.SIGALRM, previous)
    assert interrupted
    assert transaction.expired
    datastore.verify()
    transaction.rollback()
    datastore.verify()
    assert datastore.table("t").stored == before


def _filled() -> Datastore:
    datastore = Datastore()
    transaction = datastore.begin(0)
    datastore.create_tables(DEFINITION)
    rows = datastore.table("t")
    for number in range(30):
        rows.insert(rows.schema.codec.encode((0, f"n{number}", number % 7)))
    transaction.commit()
    return datastore


DATASTORE = _filled()
