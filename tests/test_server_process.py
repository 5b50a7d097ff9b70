"""`python -m stdb serve` as a process: what it prints, signals, locks, ports, and what is there after a restart."""

import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stdb.cli.serve import _print_started
from stdb.server import Running
from tests.cli_harness import KITCHEN, Ran, own_place, run, started
from tests.interop.npm import ROOT
from tests.interop.processes import Server, start_server

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    with own_place(tmp_path / "home"):
        yield tmp_path


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def serve_to_its_end(*arguments: str) -> Ran:
    """Run a server that ends by itself."""
    ended = subprocess.run(
        [sys.executable, "-m", "stdb", "serve", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def kitchen(data: str, *arguments: str) -> Server:
    return start_server("--data-dir", data, "--publish", f"{KITCHEN}=kitchen", *arguments)


def rows(server: Server) -> int:
    """Return how many rows the table `plain` has."""
    ran = run("sql", "kitchen", "select * from plain", "-s", server.http)
    assert ran.code == 0, ran.err
    return ran.out.count("\n") - 2


def call(server: Server, reducer: str, *arguments: str) -> Ran:
    return run("call", "kitchen", reducer, *arguments, "-s", server.http)


# --------------------------------------------------------------------------------------------------- start
def test_a_server_says_where_it_is_where_its_data_lies_and_how_to_publish(data: str) -> None:
    server = kitchen(data)
    server.lines.until("publish a module")
    identity = re.search(r"c200[0-9a-f]{60}", "\n".join(server.lines.seen))
    assert identity is not None
    assert server.lines.seen == [
        f"stdb is listening on {server.http}",
        f"data: {Path(data).resolve()}",
        f"published kitchen, identity: {identity[0]}",
        f"publish a module: python -m stdb publish -p PATH NAME --server {server.http}",
    ]
    assert stat.S_IMODE(os.stat(data).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(f"{data}/operator.token").st_mode) == 0o600
    assert server.stop() == 0


def test_without_a_directory_the_data_lies_in_the_users(home: Path) -> None:
    server = start_server()
    assert server.lines.until("^data: (.*)$").group(1) == str((home / "home/XDG_DATA_HOME/stdb").resolve())
    assert server.stop() == 0


def test_a_name_is_made_of_the_path(data: str) -> None:
    server = start_server("--data-dir", data, "--publish", "examples/quickstart_chat")
    server.lines.until("^published quickstart-chat, identity: c200")
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("0.0.0.0:3000", "http://127.0.0.1:3000"),
        ("[::]:3000", "http://[::1]:3000"),
        ("10.0.0.1:3000", "http://10.0.0.1:3000"),
    ],
)
def test_how_to_publish_names_an_address_of_this_machine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, address: str, url: str
) -> None:
    _print_started(Running(address, 3000, tmp_path, ()))
    assert capsys.readouterr().out.endswith(f" --server {url}\n")


def test_an_ipv6_address_stands_in_brackets(data: str) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = start_server("--data-dir", data, "--publish", f"{KITCHEN}=kitchen", listen="[::1]:0")
    assert server.address.startswith("[::1]:")
    assert call(server, "r_empty").code == 0
    watched = run("subscribe", "kitchen", "select * from secret", "-n", "0", "-s", server.address)
    assert (watched.code, watched.err) == (0, "")
    assert server.stop() == 0


def test_a_second_server_on_the_same_data_names_the_first(data: str) -> None:
    server = start_server("--data-dir", data)
    assert serve_to_its_end("--data-dir", data, "-l", "127.0.0.1:0") == (
        1,
        "",
        f"Error: another stdb server runs in {data} (pid {server.process.pid}); "
        "stop it, or choose another --data-dir\n",
    )
    assert server.stop() == 0


def test_a_port_that_is_taken_is_said_as_the_official_server_does(data: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = f"Port {port} is already in use. Please free up the port or specify a different port with --listen-addr."
        assert serve_to_its_end("--data-dir", data, "-l", f"127.0.0.1:{port}") == (1, "", f"Error: {told}\n")


def test_an_address_of_another_machine_cannot_be_listened_on(data: str) -> None:
    code, out, err = serve_to_its_end("--data-dir", data, "-l", "192.0.2.1:0")
    assert (code, out) == (1, "")
    assert err.startswith("Error: cannot listen on 192.0.2.1:0: ")
    assert err.endswith("Choose another --listen-addr HOST:PORT.\n")


def test_a_module_that_is_wrong_stops_the_start_with_its_findings(data: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import stdb\n\n@stdb.table\nclass A:\n    x: complex\n    y: object\n")
    code, out, err = serve_to_its_end("--data-dir", data, "-l", "127.0.0.1:0", "--publish", str(tmp_path / "bad.py"))
    assert (code, out) == (1, "")
    assert "bad.py:5: A.x: complex is no column type" in err
    assert "bad.py:6: A.y: object is no column type" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--publish", "nosuch.py=x"], "Error: cannot read the module nosuch.py: No such file or directory\n"),
        (["--data-dir", "/dev/null/x"], "Error: cannot use the data directory /dev/null/x: "),
    ],
)
def test_a_path_that_leads_nowhere_is_named(data: str, arguments: list[str], told: str) -> None:
    code, out, err = serve_to_its_end("--data-dir", data, "-l", "127.0.0.1:0", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith(told)
    assert "Traceback" not in err


def test_settings_that_are_wrong_stop_the_start(data: str) -> None:
    Path(data).mkdir()
    Path(data, "config.toml").write_text("[websocket]\nping-interval = 'often'\n")
    code, _, err = serve_to_its_end("--data-dir", data, "-l", "127.0.0.1:0")
    assert code == 1
    assert err.startswith(f"Error: invalid TOML syntax in {data}/config.toml: ")


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="the limits of a process are read from /proc")
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(data: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        server = start_server("--data-dir", data)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    found = re.search(r"^Max open files +(\d+) +(\d+) ", limits, re.MULTILINE)
    assert found is not None
    assert found[1] == found[2] == str(hard)
    assert server.stop() == 0


# --------------------------------------------------------------------------------------------------- end
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_cleanly(data: str, number: signal.Signals) -> None:
    server = kitchen(data)
    with started("subscribe", "kitchen", "select * from plain", "--print-initial-update", "-s", server.http) as watcher:
        watcher[1].next(20)
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
        assert watcher[1].next(20) == "Error: the server closed the connection: 1001 module exited"
    server.lines.join()
    assert [line for line in server.lines.seen if "Traceback" in line] == []
    again = start_server("--data-dir", data)
    assert rows(again) == 3
    assert again.stop() == 0


SLOW_GOODBYE = """\
from stdb import ReducerContext, client_disconnected

@client_disconnected
def gone(ctx: ReducerContext) -> None:
    while True:
        pass
"""
"""A module that needs a second, the time limit of a reducer, for every client that leaves."""


def connect(server: Server, database: str) -> socket.socket:
    """Return a WebSocket whose first message has come, as a plain socket."""
    host, _, port = server.address.rpartition(":")
    lines = [
        f"GET /v1/database/{database}/subscribe HTTP/1.1",
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: v2.bsatn.spacetimedb",
    ]
    client = socket.create_connection((host, int(port)), timeout=20)
    client.sendall("\r\n".join([*lines, "", ""]).encode())
    received = b""
    while b"\x82" not in received.partition(b"\r\n\r\n")[2]:
        piece = client.recv(1 << 16)
        assert piece, received
        received += piece
    assert received.startswith(b"HTTP/1.1 101")
    return client


def end_with_clients(data: str, tmp_path: Path, count: int, *signals: signal.Signals) -> tuple[int, float]:
    """Stop a server whose clients need a second each to leave; return its exit code and the seconds it took."""
    (tmp_path / "slow.py").write_text(SLOW_GOODBYE)
    server = start_server("--data-dir", data, "--publish", f"{tmp_path / 'slow.py'}=slow")
    with ExitStack() as clients:
        for _ in range(count):
            clients.enter_context(connect(server, "slow"))
        began = time.monotonic()
        for number in signals:
            server.process.send_signal(number)
        code = server.process.wait(30)
        seconds = time.monotonic() - began
    server.lines.until("^stopped before everything was closed; what was confirmed is safe$")
    server.lines.join()
    return code, seconds


def test_a_second_signal_ends_a_server_at_once(data: str, tmp_path: Path) -> None:
    code, seconds = end_with_clients(data, tmp_path, 4, signal.SIGTERM, signal.SIGINT)
    assert code == 1
    assert seconds < 1


def test_an_end_that_takes_ten_seconds_is_cut_short(data: str, tmp_path: Path) -> None:
    code, seconds = end_with_clients(data, tmp_path, 15, signal.SIGTERM)
    assert code == 1
    assert 9 < seconds < 14


# --------------------------------------------------------------------------------------------------- what stays
def test_names_rows_grants_and_tokens_are_there_after_a_restart(data: str) -> None:
    server = kitchen(data)
    before = run("list", "-s", server.http).out
    run("grant", "c2" + "0" * 62, "-s", server.http)
    assert call(server, "add_plain", "7", "7").code == 0
    assert server.stop() == 0
    server = start_server("--data-dir", data)
    assert rows(server) == 4
    assert run("list", "-s", server.http).out == before
    assert "publish-python" in run("grants", "-s", server.http).out
    assert server.stop() == 0


def test_after_a_kill_everything_confirmed_is_there_and_the_lock_is_free(data: str, home: Path) -> None:
    server = kitchen(data)
    for number in range(5):
        assert call(server, "add_plain", str(number), "9").code == 0
    server.kill()
    notes = list((home / "home/XDG_STATE_HOME/stdb/servers").iterdir())
    assert len(notes) == 1
    again = start_server("--data-dir", data)
    assert rows(again) == 8
    assert again.stop() == 0


# --------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(("policy", "code"), [("owner", 1), ("public", 0)])
def test_sql_says_who_may_read_over_http(data: str, policy: str, code: int) -> None:
    Path(data).mkdir()
    Path(data, "config.toml").write_text('[stdb]\nsql = "owner"\n')  # flags win
    server = kitchen(data, "--sql", policy)
    ask = ("sql", "kitchen", "select * from plain", "-s", server.http)
    assert run(*ask).code == 0
    assert run(*ask, "--anonymous").code == code
    assert server.stop() == 0


def test_the_settings_of_websockets_are_followed(data: str) -> None:
    """A client that answers no ping is cut after the time that config.toml says."""
    Path(data).mkdir()
    Path(data, "config.toml").write_text('[websocket]\nidle-timeout = "200ms"\n')
    server = kitchen(data)
    with connect(server, "kitchen") as client:
        while client.recv(1 << 16):
            pass
    assert server.stop() == 0


INIT = """\
from stdb import ReducerContext, init

@init
def init(ctx: ReducerContext) -> None:
    print("looking for the answer")
    {}
"""


@pytest.mark.parametrize(("line", "told"), [
    ("1 // 0", "PANIC: bad.py:6: Traceback (most recent call last):"),
    ("raise ReducerError", "PANIC: bad.py:6: Traceback (most recent call last):"),
])  # fmt: skip
def test_an_init_that_breaks_at_the_start_shows_the_modules_log(
    line: str, told: str, tmp_path: Path, data: str
) -> None:
    (tmp_path / "bad.py").write_text(INIT.format(line))
    ran = serve_to_its_end("--data-dir", data, "-l", "127.0.0.1:0", "--publish", f"{tmp_path / 'bad.py'}=bad")
    assert ran.code == 1
    log = ran.err[ran.err.index("Error: The instance encountered a fatal error.\n\nThe module's log:\n") :]
    assert "\nINFO: Invoking `init` reducer\nINFO: bad.py:5: looking for the answer\n" in log
    assert f"\n{told}\n" in log
    assert log.endswith(("ZeroDivisionError: integer division or modulo by zero\n", "'ReducerError' is not defined\n"))
