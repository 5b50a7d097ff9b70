"""What a module says: print, logging, warnings of calls that block; and how a call ends whose time is over."""

import io
import logging
import socket
import time
from contextlib import redirect_stdout

import pytest

from stdb.actors.deadline import open_deadline
from stdb.errors import ReducerTimeout
from tests.python_module_harness import Lines, Running, load

BAD_FORMAT = "%d format: a real number is required, not str"
TALK = """
import logging.handlers
from logging import getLogger
from stdb import *
log = getLogger(__name__)

print("while loading")

@reducer
def talk(ctx: ReducerContext) -> None:
    print("one", 2, sep="-")
    print("no end", end="")
    print()
    logging.debug("d %s", 1)
    logging.info("i")
    log.warning("w")
    logging.getLogger("game.rules").error("e")
    logging.critical("c")
    log.log(3, "t")
    log.info("bad %d", "x")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
    logging.basicConfig(level="ERROR", filename="never.log")
    logging.info("dropped")
    assert logging.handlers is not None and logging.Logger is type(log)
"""


def test_print_and_logging_become_lines_with_level_file_line_and_function(capsys: pytest.CaptureFixture[str]) -> None:

    running = Running(TALK)
    assert running.log == [
        {"level": "Info", "message": "while loading", "target": "chat", "filename": "chat.py", "line": 7}
    ]
    running.log.clear()
    running.call("talk")
    assert {(line["filename"], line["function"]) for line in running.log} == {("chat.py", "talk")}
    told = [(line["level"], line["message"], line.get("target"), line["line"]) for line in running.log]
    assert told[:-1] == [
        ("Info", "one-2", "chat", 11),
        ("Info", "no end", "chat", 12),
        ("Info", "", "chat", 13),
        ("Debug", "d 1", None, 14),
        ("Info", "i", None, 15),
        ("Warn", "w", "chat", 16),
        ("Error", "e", "game.rules", 17),
        ("Error", "c", None, 18),
        ("Trace", "t", "chat", 19),
        (
            "Info",
            "'bad %d' does not take the arguments ('x',): %d format: a real number is required, not str",
            "chat",
            20,
        ),
    ]
    assert told[-1][0] == "Error"
    assert told[-1][1] == (
        'failed\nTraceback (most recent call last):\n  File "chat.py", line 22, in talk\n    1 / 0\n'
        "ZeroDivisionError: division by zero"
    )
    assert capsys.readouterr() == ("", "")


def test_the_servers_own_logging_is_neither_used_nor_changed(caplog: pytest.LogCaptureFixture) -> None:
    level = logging.getLogger().level
    with caplog.at_level(logging.DEBUG):
        running = Running(TALK)
        running.call("talk")
    assert caplog.records == []
    assert logging.getLogger().level == level


def test_print_into_a_file_goes_there() -> None:
    running = Running(
        """
        import io, sys
        from stdb import *
        @reducer
        def write(ctx: ReducerContext) -> None:
            print("there", file=sys.stdout)
            print(1, 2, file=(text := io.StringIO()), sep="+")
            print(text.getvalue().strip())
        """
    )
    with redirect_stdout(io.StringIO()) as stdout:
        running.call("write")
    assert stdout.getvalue() == "there\n"
    assert running.log.messages == ["1+2"]


def test_lines_before_the_log_is_there_are_bounded() -> None:
    running = Running("for n in range(3000):\n    print(n)\n")
    assert len(running.log) == 1000


BLOCK = """
import socket, time
from time import sleep
from stdb import *

def wait() -> None:
    time.sleep(0)

@reducer
def block(ctx: ReducerContext) -> None:
    wait()
    sleep(0)
    for _ in range(3):
        socket.socket().close()
    assert time.monotonic() > 0
"""


def test_blocking_calls_warn_once_per_line() -> None:
    running = Running(BLOCK)
    running.call("block")
    running.call("block")
    assert [(line["level"], line["line"], line["message"].split(" waits")[0]) for line in running.log] == [
        ("Warn", 7, "time.sleep()"),
        ("Warn", 12, "time.sleep()"),
        ("Warn", 14, "a socket"),
    ]
    assert running.log[0]["message"].endswith(
        "waits in the server's only thread: every client of every database waits with it"
    )


def test_blocking_calls_of_others_are_nobodys_business() -> None:
    running = Running(BLOCK)
    socket.socket().close()
    time.sleep(0)
    assert running.log == []


def test_input_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running("from stdb import *\n@reducer\ndef ask(ctx: ReducerContext) -> None:\n    print(input('? '))\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("answer\n"))
    with redirect_stdout(io.StringIO()):
        running.call("ask")
    assert [line["message"].split(" waits")[0] for line in running.log] == ["input()", "answer"]


TIMES = """
from stdb import *

@table
class Item:
    id: u32 = primary_key()

@reducer
def catches(ctx: ReducerContext) -> None:
    ctx.db[Item].insert(Item(id=1))
    raise_it()
    ctx.db[Item].insert(Item(id=2))

@reducer
def swallows(ctx: ReducerContext) -> None:
    try:
        raise_it()
    except BaseException:
        pass

@reducer
def hides(ctx: ReducerContext) -> None:
    try:
        raise_it()
    except BaseException:
        raise SenderError("not my fault")

@reducer
def goes_on(ctx: ReducerContext) -> None:
    try:
        raise_it()
    except BaseException:
        print(len(ctx.db[Item]))
"""


@pytest.mark.parametrize(("reducer", "line"), [("catches", 4), ("swallows", None), ("hides", 26), ("goes_on", 33)])
def test_a_reducer_whose_time_is_over_ends_as_that_whatever_it_does(reducer: str, line: int | None) -> None:
    running = Running(TIMES)
    transaction = running.store.begin(1)

    def raise_it() -> None:
        transaction.expired = True
        raise ReducerTimeout("the reducer ran longer than 1 s and was stopped")

    (namespace,) = running.module._version.namespaces().values()
    namespace["raise_it"] = raise_it
    with pytest.raises(ReducerTimeout) as caught:
        running.run(transaction, reducer, b"")
    transaction.rollback()
    assert running.rows("item") == []
    if reducer == "catches":
        assert str(caught.value) == "the reducer ran longer than 1 s and was stopped; it was at chat.py:11"
    elif line is not None:
        assert str(caught.value).endswith(f"; it was at chat.py:{line}")
    assert "passed" in str(caught.value) or "stopped" in str(caught.value)
    assert not [message for message in running.log.messages if message.isdigit()]


LOOPS = {
    "pass": "while True: pass",
    "tables": "while True: ctx.db[Item].insert_or_update(Item(id=1))",
    "library": "json.dumps([list(range(1000))] * 10**6, indent=1)",
    "generator": "sum(1 for n in iter(int, 1))",
    "stubborn": "\n".join(
        [
            "while True:",
            "    try:",
            "        while True: pass",
            "    except BaseException:",
            "        len(ctx.db[Item])",
        ]
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_an_endless_reducer_is_stopped_by_the_servers_timer(loop: str) -> None:
    body = LOOPS[loop].replace("\n", "\n    ")
    running = Running(TIMES + f"\nimport json\n@reducer\ndef endless(ctx: ReducerContext) -> None:\n    {body}\n")
    transaction = running.store.begin(1)
    with open_deadline(0.05) as deadline:
        deadline.transaction, deadline.started = transaction, time.perf_counter()
        deadline.arm()
        with pytest.raises(ReducerTimeout, match=r"it was at chat.py:\d+"):
            running.run(transaction, "endless", b"")
        deadline.disarm()
    assert time.perf_counter() - deadline.started < 1.2
    transaction.rollback()
    running.store.verify()
    assert running.rows("item") == []


OPERATIONS = """
    ctx.db[Item].get(1)
    ctx.db[Item][1]
    ctx.db[Item].find(Item.id == 1)
    ctx.db[Item].filter(Item.id == 1)
    ctx.db[Item].explain()
    len(ctx.db[Item])
    iter(ctx.db[Item])
    Item(id=1) in ctx.db[Item]
    ctx.db[Item].insert(Item(id=1))
    ctx.db[Item].try_insert(Item(id=1))
    ctx.db[Item].insert_many([Item(id=1)])
    ctx.db[Item].insert_or_update(Item(id=1))
    ctx.db[Item].update(Item(id=1))
    ctx.db[Item].delete(Item(id=1))
    ctx.db[Item].delete(Item.id == 1)
    ctx.db[Item].delete_key(1)
    ctx.db[Item].clear()
    ctx.db.item.iter()
    ctx.db.item.id.find(1)
    ctx.db.item.id.update(Item(id=1))
    ctx.db.item.id.delete(1)
    ctx.db.item.id.filter(1)
"""


@pytest.mark.parametrize("operation", OPERATIONS.strip().splitlines())
def test_every_operation_asks_whether_the_time_is_over(operation: str) -> None:
    source = TIMES + f"\n@reducer\ndef late(ctx: ReducerContext) -> None:\n    {operation.strip()}\n"
    running = Running(source)
    transaction = running.store.begin(1)
    transaction.expired = True
    with pytest.raises(ReducerTimeout, match=r"passed; it was at chat.py:\d+"):
        running.run(transaction, "late", b"")
    assert running.store.undo == []
    transaction.rollback()


def test_lines_of_two_databases_never_meet() -> None:
    one, other = Running(TALK), Running(load(TALK))
    one.log.clear()
    other.log.clear()
    one.call("talk")
    assert len(one.log) == 11
    assert other.log == Lines()
