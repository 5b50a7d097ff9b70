"""The example of spec 08, end to end against a datastore."""

from pathlib import Path

import pytest

from stdb.errors import DecodeError, ModuleFault, ReducerError
from stdb.modules.protocol import FATAL
from stdb.modules.python import loader
from stdb.schema.model import Access, CasePolicy, Lifecycle, Visibility
from tests.python_module_harness import ALICE, BOB, Running, load

EXAMPLE = Path(__file__).parent.parent / "examples" / "quickstart_chat"


def example() -> Running:
    files = {f"quickstart_chat/{path.name}": path.read_bytes() for path in EXAMPLE.glob("*.py")}
    return Running(loader.load(files))


def test_the_example_becomes_the_definition_that_clients_know() -> None:
    definition = example().module.definition
    assert [table.name for table in definition.tables] == ["user", "message"]
    user, message = definition.tables
    assert (user.access, user.primary_key, message.primary_key) == (Access.PUBLIC, 0, 0)
    assert [index.name for index in message.indexes] == ["message_id_idx_btree", "message_sender_idx_btree"]
    assert [unique.name for unique in message.uniques] == ["message_id_key"]
    assert [sequence.name for sequence in message.sequences] == ["message_id_seq"]
    assert [column.default for column in user.columns] == [None, b"\x01", b"\x00"]
    assert [reducer.name for reducer in definition.reducers] == [
        "set_name",
        "send_message",
        "connected",
        "disconnected",
    ]
    assert definition.lifecycle(Lifecycle.ON_CONNECT) == 2
    assert definition.lifecycle(Lifecycle.ON_DISCONNECT) == 3
    assert [reducer.visibility for reducer in definition.reducers][2:] == [Visibility.PRIVATE] * 2
    assert definition.case_policy is CasePolicy.NONE
    assert definition.abi_is_v10
    assert {type_.name for type_ in definition.types} == {"User", "Message"}
    assert all(type_.custom_ordering for type_ in definition.types)


def test_users_come_name_themselves_talk_and_go() -> None:
    chat = example()
    chat.call("connected")
    assert chat.rows("user") == [(ALICE, None, True)]
    chat.call("set_name", "Alice")
    chat.call("send_message", "hello")
    chat.call("send_message", "anybody?", sender=ALICE)
    chat.call("disconnected")
    assert chat.rows("user") == [(ALICE, "Alice", False)]
    rows = chat.rows("message")
    assert [(row[0], row[1], row[3]) for row in rows] == [(1, ALICE, "hello"), (2, ALICE, "anybody?")]
    assert rows[0][2] < rows[1][2]
    chat.call("connected")
    assert chat.rows("user") == [(ALICE, "Alice", True)]


def test_a_refusal_rolls_back_and_tells_the_caller() -> None:
    chat = example()
    with pytest.raises(ReducerError, match=r"^connect before you choose a name$"):
        chat.call("set_name", "Bob", sender=BOB)
    chat.call("connected", sender=BOB)
    with pytest.raises(ReducerError, match=r"^a name must not be empty$"):
        chat.call("set_name", "  ", sender=BOB)
    assert chat.rows("user") == [(BOB, None, True)]
    with pytest.raises(ReducerError, match=r"^a message must not be empty$"):
        chat.call("send_message", "\n", sender=BOB)
    assert chat.rows("message") == []


def test_arguments_that_do_not_decode_run_nothing() -> None:
    chat = example()
    transaction = chat.store.begin(1)
    with pytest.raises(DecodeError):
        chat.run(transaction, "send_message", b"\x05\x00\x00\x00abc")
    assert transaction.commit() is None


def test_any_other_exception_is_a_fault_whose_report_shows_the_modules_own_frames() -> None:
    running = Running(
        """
        from stdb import *

        @table
        class Item:
            id: u32 = primary_key()

        def divide(a: int, b: int) -> float:
            return a / b

        @reducer
        def broken(ctx: ReducerContext) -> None:
            ctx.db[Item].insert(Item(id=1))
            divide(1, 0)

        @reducer
        def duplicate(ctx: ReducerContext) -> None:
            sorted([1, 2], key=lambda number: divide(number, 0))
        """
    )
    with pytest.raises(ModuleFault) as caught:
        running.call("broken")
    fault = caught.value
    assert str(fault) == "The instance encountered a fatal error."
    assert isinstance(fault.__cause__, ZeroDivisionError)
    assert (fault.filename, fault.line) == ("chat.py", 9)
    assert fault.report == (
        "Traceback (most recent call last):\n"
        '  File "chat.py", line 14, in broken\n'
        "    divide(1, 0)\n"
        '  File "chat.py", line 9, in divide\n'
        "    return a / b\n"
        "ZeroDivisionError: division by zero"
    )
    assert running.rows("item") == []
    with pytest.raises(ModuleFault) as caught:
        running.call("duplicate")
    assert str(caught.value.report).count("File") == 3


@pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()", "BaseException('no')"])
def test_no_exception_of_a_module_gets_past_its_entry(raised: str) -> None:
    running = Running(
        f"""
        from stdb import *
        @reducer
        def leave(ctx: ReducerContext) -> None:
            raise {raised}
        """
    )
    with pytest.raises(ModuleFault):
        running.call("leave")


@pytest.mark.parametrize(
    ("base", "expected"), [("Exception", ModuleFault), ("SenderError", ReducerError), ("SystemExit", ModuleFault)]
)
def test_an_exceptions_own_code_does_not_get_past_the_entry_either(base: str, expected: type[Exception]) -> None:
    running = Running(
        f"""
        from stdb import *
        class Evil({base}):
            def __str__(self): raise SystemExit
            __class__ = __notes__ = __traceback__ = __cause__ = property(__str__)
        @reducer
        def leave(ctx: ReducerContext) -> None:
            raise Evil
        """
    )
    with pytest.raises(expected) as caught:
        running.call("leave")
    assert str(caught.value) in (FATAL, "(its text cannot be had: SystemExit)")


def test_a_reducer_calls_another_as_a_plain_function_in_the_same_transaction() -> None:
    running = Running(
        """
        from stdb import *
        @table
        class Item:
            id: u32 = primary_key()
        @reducer
        def add(ctx: ReducerContext, id: u32) -> None:
            ctx.db[Item].insert(Item(id=id))
        @reducer
        def add_two(ctx: ReducerContext, id: u32) -> None:
            add(ctx, id)
            add(ctx, id + 1)
        """
    )
    delta = running.call("add_two", 5)
    assert delta is not None
    assert len(delta.tables[0].inserts) == 2
    assert running.rows("item") == [(5,), (6,)]


def test_the_context_tells_who_when_and_where() -> None:
    running = Running(
        """
        import json
        from stdb import *
        @table
        class Seen:
            key: str = primary_key()
            value: str
        @reducer
        def look(ctx: ReducerContext) -> None:
            for key, value in {
                "sender": ctx.sender, "address": ctx.address, "connection": ctx.connection_id,
                "time": ctx.timestamp.micros, "database": ctx.database_identity, "auth": json.dumps(ctx.sender_auth),
                "random": ctx.rng.random(),
            }.items():
                ctx.db[Seen].insert_or_update(Seen(key=key, value=str(value)))
        """
    )
    transaction = running.store.begin(1)
    running.run(transaction, "look", b"", ALICE, bytes([9]) * 16, '{"sub": "alice"}')
    transaction.commit()
    seen = dict(running.rows("seen"))
    assert seen["sender"] == ALICE[::-1].hex()
    assert seen["address"] == seen["connection"] == "09" * 16
    assert seen["time"] == str(running.clock_us)
    assert seen["database"] == "07" * 32
    assert seen["auth"] == '{"sub": "alice"}'
    running.clock_us -= 1
    running.call("look", connection_id=None)
    again = dict(running.rows("seen"))
    assert again["random"] == seen["random"]
    assert (again["address"], again["auth"]) == ("None", "{}")
    running.call("look", sender=BOB)
    assert dict(running.rows("seen"))["random"] != seen["random"]


def test_a_context_has_nothing_else() -> None:
    running = Running("from stdb import *\n@reducer\ndef look(ctx: ReducerContext) -> None:\n    ctx.sendr\n")
    with pytest.raises(ModuleFault) as caught:
        running.call("look")
    assert "a reducer's context has no attribute 'sendr'; it has db, sender, " in str(caught.value.report)


def test_a_context_kept_for_later_has_no_tables() -> None:
    running = Running(
        """
        from stdb import *
        @table
        class Item:
            id: u32 = primary_key()
        kept = None
        @reducer
        def keep(ctx: ReducerContext) -> None:
            global kept
            kept = ctx
        """
    )
    running.call("keep")
    (namespace,) = running.module._version.namespaces().values()
    with pytest.raises(Exception, match="during a reducer's call only"):
        len(namespace["kept"].db.item)


def test_two_databases_with_the_same_program_never_meet() -> None:
    source = """
        from stdb import *
        count = 0
        @reducer
        def tick(ctx: ReducerContext) -> None:
            global count
            count += 1
            print(count)
        """
    one, other = Running(source), Running(load(source))
    one.call("tick")
    one.call("tick")
    other.call("tick")
    assert one.module.program_hash == other.module.program_hash
    assert [line["message"] for line in one.log if line["level"] == "Info"] == ["1", "2"]
    assert [line["message"] for line in other.log if line["level"] == "Info"] == ["1"]
