"""Real processes in tests: a server, client programs driven by JSON lines."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.interop.npm import NODE_SOURCES, ROOT, TEST_CACHE, install, require

__all__ = ["SDKS", "WAIT_SECONDS", "Driver", "NodeDriver", "Server", "serve", "serve_on", "start_server"]

SDKS = {
    "2.10.1": ("sdk_2.mjs", "spacetimedb@2.10.1"),
    "2.0.0": ("sdk_2.mjs", "spacetimedb@2.0.0"),
    "1.12.0": ("sdk_1_12.mjs", "spacetimedb@1.12.0"),
    "1.3.3": ("sdk_1_3.mjs", "@clockworklabs/spacetimedb-sdk@1.3.3"),
}
"""npm SDKs by version: the program around it in `node/`, its package."""

WAIT_SECONDS = 30.0


class Lines:
    """The lines a process prints, read by a thread so that waiting can end."""

    def __init__(self, stream: Any) -> None:
        self._queue: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def join(self) -> None:
        """Wait for the end of a process that was told to end."""
        self._thread.join(timeout=10)

    def next(self, seconds: float) -> str:
        """Return the next line; AssertionError when none comes in time or the process ended."""
        try:
            line = self._queue.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            raise AssertionError(f"no line in time; so far:\n{chr(10).join(self.seen)}") from None
        assert line is not None, f"the process ended; it printed:\n{chr(10).join(self.seen)}"
        self.seen.append(line)
        return line

    def until(self, pattern: str, seconds: float = WAIT_SECONDS) -> re.Match[str]:
        """Return the first match of `pattern` in a coming line."""
        end = time.monotonic() + seconds
        while True:
            if match := re.search(pattern, self.next(end - time.monotonic())):
                return match


class Server:
    """A `python -m stdb serve` process."""

    def __init__(self, process: "subprocess.Popen[str]", lines: Lines, address: str) -> None:
        self.process = process
        self.lines = lines
        self.address = address
        self.http = f"http://{address}"
        self.ws = f"ws://{address}"
        self.operator = ""
        """The operator's token (`serve`, `serve_on`)."""

    def ask(self, method: str, path: str, token: str | None = None, body: bytes = b"") -> Any:
        """Send a request over HTTP and return the JSON of the answer; AssertionError when it is refused."""
        return json.loads(self.read(path, token, method=method, body=body) or "null")

    def read(self, path: str, token: str | None = None, *, method: str = "GET", body: bytes | None = None) -> str:
        """Send a request over HTTP and return the text of the answer; AssertionError when it is refused."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.http + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
                text: str = answer.read().decode()
                return text
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from None

    def sql(self, database: str, text: str, token: str | None = None) -> list[dict[str, Any]]:
        """Run a statement, as the operator unless told otherwise; return its rows by column name."""
        (result,) = self.ask("POST", f"/v1/database/{database}/sql", token or self.operator, text.encode())
        names = [element["name"]["some"] for element in result["schema"]["elements"]]
        return [dict(zip(names, row, strict=True)) for row in result["rows"]]

    def stdb(self, command: str, *arguments: str) -> str:
        """Run a command against it, as the user of the tests; return what it printed, both streams."""
        done = subprocess.run(
            [sys.executable, "-m", "stdb", command, "-s", self.http, *arguments],
            cwd=ROOT,
            env={**os.environ, "XDG_CONFIG_HOME": str(TEST_CACHE / "config")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.lines.join()

    def stop(self) -> int:
        """End the process with SIGTERM; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=20)
        self.lines.join()
        return code


def start_server(*arguments: str, listen: str = "127.0.0.1:0", program: str = "stdb") -> Server:
    """Start a server and return it once it listens. `program`: the Python module that is the command line."""
    command = [sys.executable, "-m", program, "serve", "--listen-addr", listen, *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    lines = Lines(process.stdout)
    try:
        address = lines.until(r"listening on (?:http://)?(\S+:\d+)").group(1)
    except AssertionError:
        process.kill()
        process.wait()
        lines.join()
        raise
    return Server(process, lines, address)


@contextmanager
def serve(*arguments: str, **options: Any) -> Iterator[Server]:
    """Run a server on a fresh data directory for a while; it must still be alive at the end and stop cleanly."""
    with tempfile.TemporaryDirectory() as data, serve_on(Path(data), *arguments, **options) as server:
        yield server


@contextmanager
def serve_on(data: Path, *arguments: str, **options: Any) -> Iterator[Server]:
    """Run a server on a data directory for a while; it must still be alive at the end and stop cleanly."""
    server = start_server("--data-dir", str(data), *arguments, **options)
    try:
        server.operator = (data / "operator.token").read_text().strip()
        yield server
        assert server.process.poll() is None, f"the server ended: {server.lines.seen}"
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.kill()


class Driver:
    """A program around one SDK: commands go in as JSON lines, events come out as JSON lines."""

    def __init__(self, *command: str | Path, directory: Path | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines = Lines(self.process.stdout)
        self._events: list[dict[str, Any]] = []
        self.wait("ready")

    def do(self, what: str, **options: Any) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **options}) + "\n")
        self.process.stdin.flush()

    def wait(
        self,
        event: str,
        matching: Callable[[dict[str, Any]], bool] = lambda _event: True,
        seconds: float = WAIT_SECONDS,
    ) -> dict[str, Any]:
        """Return the first unread event of that name that matches; events of other names stay to be read."""
        for i, seen in enumerate(self._events):
            if seen["event"] == event and matching(seen):
                return self._events.pop(i)
        end = time.monotonic() + seconds
        while True:
            came = self._parse(self._lines.next(end - time.monotonic()))
            if came["event"] == event and matching(came):
                return came
            self._events.append(came)

    def seen(self, event: str, matching: Callable[[dict[str, Any]], bool] = lambda _event: True) -> bool:
        """Tell whether such an event came and was not read."""
        return any(seen["event"] == event and matching(seen) for seen in self._events)

    def take(self, *events: str) -> list[dict[str, Any]]:
        """Return the events of these names that came and were not read, and forget them."""
        taken = [seen for seen in self._events if seen["event"] in events]
        self._events = [seen for seen in self._events if seen["event"] not in events]
        return taken

    def ask(self, what: str, **options: Any) -> dict[str, Any]:
        """Send a command and return the event of the same name."""
        self.do(what, **options)
        return self.wait(what)

    def close(self) -> None:
        """End the program."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._lines.join()

    def _parse(self, line: str) -> dict[str, Any]:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            event = {"event": "output", "text": line}
        assert event["event"] != "crash", event["text"]
        return event


class NodeDriver(Driver):
    """A Node program (`node/driver.mjs`) around one npm SDK, for one module of `node/modules.mjs`."""

    def __init__(self, version: str, module: str = "chat") -> None:
        self.version = version
        program, package = SDKS[version]
        directory = install(f"client-{version}", package, "undici@6")
        for source in ("driver.mjs", "common.mjs", "modules.mjs", program):
            mine = directory / f"{source}.{os.getpid()}"
            mine.write_text((NODE_SOURCES / source).read_text())
            mine.replace(directory / source)  # another test process may be about to run it
        super().__init__(require("node"), "driver.mjs", program, module, directory=directory)
