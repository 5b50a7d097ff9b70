"""The module log: lines as the reference writes them, in bounded files, for readers and followers."""

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from stdb.storage.module_log import PENDING_BYTES_MAX, ModuleLog

DAY_US = 86_400_000_000
START_US = 1_737_665_769_000_000  # 2025-01-23


class Clock:
    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        return self.now_us


def lines(log: ModuleLog, count: int | None = None) -> list[dict[str, object]]:
    return [json.loads(line) for line in b"".join(log.tail(count)).splitlines()]


@pytest.fixture(params=["files", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> ModuleLog:
    return ModuleLog(tmp_path / "log" if request.param == "files" else None, Clock())


def test_a_line_has_its_members_in_the_order_of_the_reference(log: ModuleLog) -> None:
    log.write("Info", "Hello, Bob!", target="my_module", filename="src/lib.rs", line=12, function="say_hello")
    expected = (
        '{"level":"Info","ts":1737665769000000,"target":"my_module","filename":"src/lib.rs","line_number":12,'
        '"function":"say_hello","message":"Hello, Bob!"}\n'
    )
    assert b"".join(log.tail(None)).decode() == expected
    log.close()


def test_host_lines_and_panics_look_like_the_recorded_ones(log: ModuleLog) -> None:
    log.write_host("Database initialized")
    log.write("Panic", "oh", filename="chat.py", line=3, function="f", trace=["f", "g"])
    host, panic = lines(log)
    assert host == {
        "level": "Info", "ts": START_US, "target": "__spacetimedb__", "filename": "__spacetimedb__",
        "function": "__spacetimedb__", "message": "Database initialized",
    }  # fmt: skip
    assert "target" not in panic
    assert panic["trace"] == [{"func_name": "f"}, {"func_name": "g"}]
    log.close()


@pytest.mark.parametrize("count", [0, 1, 2, 99, 100, 1000, None])
def test_the_tail_is_the_last_lines(log: ModuleLog, count: int | None) -> None:
    for number in range(100):
        log.write("Info", str(number) * 2000)
    expected = list(range(100))[100 - count if count is not None and count < 100 else 0 :]
    assert [
        str(line["message"])[: len(str(number))] for number, line in zip(expected, lines(log, count), strict=True)
    ] == [str(number) for number in expected]
    log.close()


def test_full_files_are_continued_and_the_tail_spans_the_day(tmp_path: Path) -> None:
    log = ModuleLog(tmp_path, Clock(), file_bytes_max=200)
    for number in range(10):
        log.write("Info", f"{number}")
    assert len(list(tmp_path.iterdir())) > 2
    assert all(path.stat().st_size < 300 for path in tmp_path.iterdir())
    assert [line["message"] for line in lines(log, 9)] == [str(number) for number in range(1, 10)]
    log.close()
    reopened = ModuleLog(tmp_path, Clock(), file_bytes_max=200)
    reopened.write("Info", "10")
    assert [line["message"] for line in lines(reopened, 100)] == [str(number) for number in range(11)]
    reopened.close()


def test_a_new_day_begins_a_file_and_old_ones_go(tmp_path: Path) -> None:
    clock = Clock()
    log = ModuleLog(tmp_path, clock)
    for day in range(20):
        clock.now_us = START_US + day * DAY_US
        log.write("Info", str(day))
    assert sorted(path.name for path in tmp_path.iterdir())[0] == "2025-01-29.ndjson"
    assert len(list(tmp_path.iterdir())) == 14
    assert [line["message"] for line in lines(log, 5)] == ["19"]
    log.close()


def test_an_empty_log_has_no_lines(log: ModuleLog) -> None:
    assert lines(log) == lines(log, 5) == []
    log.write("Info", "x")
    log.clear()
    assert lines(log) == []
    log.write("Info", "y")
    assert [line["message"] for line in lines(log)] == ["y"]
    log.close()


def test_text_that_is_no_unicode_is_still_logged(log: ModuleLog) -> None:
    log.write("Warn", "a\ud800b")
    assert [line["message"] for line in lines(log)] == ["a?b"]
    log.close()


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way of the directory")
    log = ModuleLog(tmp_path / "file" / "log", Clock())
    log.write("Info", "x")
    log.write("Info", "y")
    assert log.lines_lost == 2
    assert len(caplog.records) == 1
    log.close()


def test_followers_see_new_lines_and_slow_ones_lose_the_oldest(log: ModuleLog) -> None:
    async def follow() -> None:
        log.write("Info", "before")
        with log.follow() as quick, log.follow() as slow:
            log.write("Info", "first")
            assert json.loads(await quick.receive_some())["message"] == "first"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for_line, quick)
                await trio.testing.wait_all_tasks_blocked()
                log.write("Info", "x" * 1000)
            for _ in range(PENDING_BYTES_MAX // 1000 + 10):
                log.write("Info", "y" * 1000)
            kept = await slow.receive_some()
            assert PENDING_BYTES_MAX - 2000 < len(kept) <= PENDING_BYTES_MAX
            assert b"first" not in kept
            log.close()
            await quick.receive_some()
            assert await quick.receive_some() == b""
        assert log._followers == set()

    async def wait_for_line(follower: object) -> None:
        assert b"x" * 1000 in await follower.receive_some()  # type: ignore[attr-defined]

    trio.run(follow)


RECORDED = json.loads((Path(__file__).parent / "vectors/recorded_http/logs.json").read_text())


def test_the_recorded_lines_are_written_byte_for_byte() -> None:
    clock = Clock()
    log = ModuleLog(None, clock)
    for text in RECORDED["module_log_lines"]:
        line = json.loads(text)
        clock.now_us = line["ts"]
        trace = [entry["func_name"] for entry in line["trace"]] if "trace" in line else None
        members = {name: line.get(name) for name in ("target", "filename", "function")}
        log.write(line["level"], line["message"], line=line.get("line_number"), trace=trace, **members)
    written = b"".join(log.tail(None)).decode().splitlines()
    assert written == RECORDED["module_log_lines"]
    log.close()


def test_the_hosts_own_lines_have_the_recorded_source() -> None:
    log = ModuleLog(None, Clock())
    lines_of_host = [
        line
        for action in RECORDED["host_log_lines"]
        for line in action["lines"]
        if line.get("target", "__spacetimedb__") == "__spacetimedb__" and line["level"] != "Panic"
    ]
    assert len(lines_of_host) > 40
    for line in lines_of_host:
        log.write_host(line["message"], line["level"], line["function"])
    members = ("level", "function", "message")
    shown = [{name: line[name] for name in members} for line in lines(log)]
    assert shown == [{name: line[name] for name in members} for line in lines_of_host]
    assert {line["target"] for line in lines(log)} == {line["filename"] for line in lines(log)} == {"__spacetimedb__"}
    log.close()
