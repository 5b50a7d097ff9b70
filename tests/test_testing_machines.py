"""State machines derived from modules: they find what an author's invariants, or the module itself, break."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from stdb.errors import ModuleFault, UniqueViolation
from stdb.testing import TestHost, state_machine
from stdb.testing.machines import ModuleMachine
from tests import testing_market as market
from tests.testing_market import Item, Note, sold

Program = Callable[[str], Path]
QUICK = settings(
    max_examples=150,
    stateful_step_count=10,
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=False,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

ACCOUNTS = """
from stdb import *

@table(public=True)
class Account:
    name: str = primary_key()
    coins: u32 = 10

@reducer
def open_account(ctx: ReducerContext, name: str) -> None:
    if ctx.db[Account].get(name) is not None:
        raise SenderError("taken")
    ctx.db[Account].insert(Account(name=name))

@reducer
def pay(ctx: ReducerContext, payer: str, payee: str, coins: u32) -> None:
    source, target = ctx.db[Account].get(payer), ctx.db[Account].get(payee)
    if source is None or target is None or source.coins < coins:
        raise SenderError("no")
    {pay}
"""
GOOD = """
    source.coins -= coins
    ctx.db[Account].update(source)
    target = ctx.db[Account][payee]
    target.coins += coins
    ctx.db[Account].update(target)
"""
BAD = """
    source.coins -= coins
    target.coins += coins
    ctx.db[Account].update(source)
    ctx.db[Account].update(target)
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def write(source: str) -> Path:
        path = tmp_path / f"program_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(source)
        return path

    return write


def run(machine: type[ModuleMachine], **changes: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(QUICK, **changes))


def coins_are_neither_made_nor_lost(host: TestHost) -> None:
    accounts = host.table("account").all()
    assert sum(account.coins for account in accounts) == 10 * len(accounts)


def test_a_module_that_keeps_its_invariants_passes(program: Program) -> None:
    path = program(ACCOUNTS.format(pay=GOOD))
    run(state_machine(path, invariants=[coins_are_neither_made_nor_lost]), max_examples=20)


def test_an_invariant_that_a_rare_call_breaks_is_found(program: Program) -> None:
    """Somebody pays himself: the arguments have to name the same row twice."""
    path = program(ACCOUNTS.format(pay=BAD))
    with pytest.raises(AssertionError, match="assert"):
        run(state_machine(path, invariants=[coins_are_neither_made_nor_lost]))


def test_an_exception_that_the_module_does_not_mean_is_found_with_its_place(program: Program) -> None:
    path = program(
        "from stdb import *\n@reducer\ndef divide(ctx: ReducerContext, a: i32, b: i32) -> None:\n    print(a // b)\n"
    )
    with pytest.raises(ModuleFault) as caught:
        run(state_machine(path))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


UNIQUE = """
from stdb import *

@table(public=True)
class Name:
    name: str = primary_key()

@reducer
def take(ctx: ReducerContext, name: str) -> None:
    ctx.db[Name].insert(Name(name=name))

"""


def test_exceptions_that_count_as_refusals_are_none_of_its_business(program: Program) -> None:
    path = program(
        "from stdb import *\n@table(public=True)\nclass Name:\n    name: str = primary_key()\n    n: u64 = auto_inc()\n"
        "@reducer\ndef take(ctx: ReducerContext, name: str) -> None:\n    ctx.db[Name].insert(Name(name=name))\n"
    )
    with pytest.raises(ModuleFault):
        run(state_machine(path))
    run(state_machine(path, refusals=[UniqueViolation]), max_examples=20)


@pytest.mark.parametrize(
    ("declared", "function"),
    [
        ("@view(public=True)\ndef broken(ctx: AnonymousViewContext) -> list[Name]:\n", "broken"),
        ("@client_disconnected\ndef gone(ctx: ReducerContext) -> None:\n", "gone"),
    ],
)
def test_what_breaks_without_a_caller_is_found(program: Program, declared: str, function: str) -> None:
    body = "    if len(ctx.db[Name]) > 1:\n        raise RuntimeError('too many')\n"
    body += "    return []\n" if "view" in declared else ""
    path = program(UNIQUE + declared + body)
    with pytest.raises(AssertionError, match=f"{function} broke:"):
        run(state_machine(path, refusals=[UniqueViolation]))


def test_arguments_are_drawn_from_the_authors_strategies(program: Program) -> None:
    path = program(ACCOUNTS.format(pay=GOOD))
    machine = state_machine(path, arguments={"open_account": {"name": st.just("only")}})

    def only_that_name(host: TestHost) -> None:
        assert {account.name for account in host.table("account")} <= {"only"}

    run(type("Checked", (machine,), {"checks": (only_that_name,)}), max_examples=20)
    with pytest.raises(TypeError, match="open_account has no parameter 'nam'; it has name"):
        state_machine(path, arguments={"open_account": {"nam": st.just("x")}})
    with pytest.raises(KeyError, match="is no reducer and no procedure"):
        state_machine(path, arguments={"close_account": {}})


def test_a_module_with_everything_is_called_in_every_way() -> None:
    called: set[str] = set()

    class Machine(
        state_machine(  # type: ignore[misc]  # a class that a function makes
            market,
            arguments={
                market.rate: {"factor": st.integers(0, 9)},
                market.set_alarm: {"seconds": st.integers(900, 9000)},
                market.nap: {"seconds": st.integers(0, 100)},
            },
            refusals=[KeyError, Exception],
        )
    ):
        def call(self, function: Any, who: str, data: Any) -> None:
            called.add(function.name)
            super().call(function, who, data)

        def meanwhile(self, what: str, who: str, data: Any) -> None:
            called.add(what)
            super().meanwhile(what, who, data)

    def everything_sold_was_there(host: TestHost) -> None:
        assert not {item.id for item in host[sold]} & {item.id for item in host[Item]}
        assert host[Note].get("opened") is not None

    Machine.checks = (everything_sold_was_there,)
    run(Machine, max_examples=25)
    assert called >= {"put", "buy", "reprice", "roll", "ring_bell", "set_alarm", "rate", "nap"}
    assert called >= {"come", "go", "pass_time"}
    assert called & {"restart", "crash"}
    assert not called & {"close", "alarm", "opened", "comes"}


EVERY_TYPE = """
import datetime, enum, uuid
from stdb import *

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

@product
class Point:
    x: f32
    near: list[Identity]

@product
class Circle:
    centre: Point
    colour: Colour | None

Shape = Point | Circle

@table
class Seen:
    what: str = primary_key()

@reducer
def numbers(ctx: ReducerContext, a: u8, b: u16, c: u32, d: u64, e: u128, f: u256, g: i8, h: i16, i: i32, j: i64,
            k: i128, l: i256, m: int, n: float, o: f32, p: bool) -> None:
    ctx.db[Seen].insert_or_update(Seen(what="numbers"))

@reducer
def specials(ctx: ReducerContext, a: Identity, b: Address, c: Timestamp, d: TimeDuration, e: ScheduleAt, f: uuid.UUID,
             g: datetime.datetime, h: datetime.timedelta, i: bytes, j: str) -> None:
    assert type(a) is Identity and type(f) is uuid.UUID and type(g) is datetime.datetime, (a, f, g)
    ctx.db[Seen].insert_or_update(Seen(what=f"identity {a}"))

@reducer
def composites(ctx: ReducerContext, a: list[int], b: list[u8], c: list[str] | None, d: Colour, e: Point, f: Shape,
               g: list[Circle], h: Identity | None, i: list[uuid.UUID], j: datetime.datetime | None) -> None:
    ctx.db[Seen].insert_or_update(Seen(what=type(f).__name__))
"""


def test_values_of_every_type_are_made_and_identities_mean_somebody(program: Program) -> None:
    path = program(EVERY_TYPE)
    seen: set[str] = set()

    def look(host: TestHost) -> None:
        seen.update(row.what for row in host.table("seen"))

    run(state_machine(path, invariants=[look], restarts=False), max_examples=30)
    assert seen >= {"numbers", "Point", "Circle"}
    with TestHost(path) as host:
        people = {f"identity {host.identity(name)}" for name in ("alice", "bob", "carol")}
    assert {what for what in seen if what.startswith("identity")} == people
