"""A server put together: data directory, tokens, host, front door, and an orderly end.

Responsible for: what is opened in which order, publishing at start, signals (DESIGN decision 13), process limits.
Not responsible for: the command line and what it prints (`stdb.cli`), anything a part does by itself.
"""

import contextlib
import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import trio

from stdb.actors.deadline import LoopWatch, open_deadline
from stdb.actors.epochs import keep_ticking
from stdb.actors.host import Host, HostSettings, now_us
from stdb.actors.programs import WASM_MAGIC, host_type_of
from stdb.actors.updates import Policy
from stdb.errors import SchemaError
from stdb.modules.protocol import Module
from stdb.modules.python.archive import MAGIC
from stdb.modules.python.loader import load_archive
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import TICK_SECONDS, Limits
from stdb.net.front_door import FrontDoor
from stdb.net.http_client import HttpClient
from stdb.net.issuers import Issuers
from stdb.net.tokens import Credentials, Tokens, load_or_make_key, load_or_make_operator
from stdb.schema.environment import EnvironmentChange
from stdb.storage.compiled_cache import CompiledCacheDirectory
from stdb.storage.data_directory import DataDirectory
from stdb.storage.server_storage import ServerStorage
from stdb.storage.settings import Settings

__all__ = ["Publication", "Running", "ServeOptions", "load_aside", "load_program", "serve"]

SHUTDOWN_SECONDS_MAX = 10.0
CLOSING_SECONDS_MAX = 2.0
SWITCH_INTERVAL_SECONDS = 0.0005
"""How soon the log's writer gets the interpreter from the event loop (DESIGN decision 5)."""
_LOADING = threading.Lock()
"""The engine compiles one program at a time, which leaves processors to those who are served."""
COLLECTION_THRESHOLDS = (50_000, 20, 100)


class Publication(NamedTuple):
    """A program that the operator publishes at start."""

    name: str
    program: bytes
    environment: Mapping[str, str] = MappingProxyType({})
    """Values of environment variables."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What a server is told when it starts."""

    host: str
    port: int
    """0 takes a free one."""
    data_directory: Path
    publications: tuple[Publication, ...] = ()
    sql: str | None = None
    """`owner` or `public`; None: as the settings say."""


class Running(NamedTuple):
    """A server that listens."""

    address: str
    """`HOST:PORT`, an IPv6 address in brackets."""
    port: int
    data_directory: Path
    published: tuple[tuple[str, str], ...]
    """Name and identity (64 hex digits) of what was published at start."""


def load_program(program: bytes) -> Module:
    """Return the module of an uploaded program that is not WebAssembly.

    Raises:
        SchemaError, ModuleFault: It is no program that this server can run.
    """
    if not program.startswith(MAGIC):
        raise SchemaError(
            ["the program is neither a packed Python module nor WebAssembly: pack it with `stdb publish`"]
        )
    return load_archive(program)


def load_aside(
    program: bytes, call_seconds_max: float = 1.0, cache: CompiledCacheDirectory | None = None
) -> Module | None:
    """Return the module of a program in WebAssembly, None of any other; its calls are stopped after `call_seconds_max`.

    To be called in a thread: compiling takes a second for a megabyte, and what runs before the first call may be long.

    Raises:
        SchemaError, ModuleFault: As `load_program`.
    """
    if not program.startswith(WASM_MAGIC):
        return None
    with _LOADING:
        keep_ticking()
        return load_wasm(
            program, now_us, cache=cache, limits=Limits(call_ticks_max=ceil(call_seconds_max / TICK_SECONDS))
        )


async def serve(options: ServeOptions, started: Callable[[Running], None]) -> None:
    """Serve until SIGINT or SIGTERM; `started` is called once it listens.

    Raises:
        StorageError: The data directory cannot be used.
        OSError: The address cannot be listened on.
        StdbError: A publication was refused.
    """
    _prepare_process()
    with DataDirectory(options.data_directory) as directory, _stop_signals() as stop:
        tokens = Tokens(load_or_make_key(directory), Issuers(directory.settings.stdb.issuers))
        operator = load_or_make_operator(directory, tokens)
        storage = ServerStorage(directory, now_us)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(LoopWatch().run)
                await _serve_until_signal(options, directory, tokens, operator, storage, stop, nursery, started)
                nursery.cancel_scope.cancel()
        finally:
            storage.close()


class _Stop:
    """Told by signals: the first asks for an orderly end, a second ends the process, whatever it is doing."""

    def __init__(self) -> None:
        self._asked = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._is_asked = False

    def on_signal(self, *_: object) -> None:
        """Take a signal; runs between two bytecodes of anything, a reducer without end included."""
        if self._is_asked:
            _end_at_once()
        self._is_asked = True
        self._token.run_sync_soon(self._asked.set)

    async def wait(self) -> None:
        """Return once an end was asked for."""
        await self._asked.wait()


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    stop = _Stop()
    before = [(number, signal.signal(number, stop.on_signal)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield stop
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _end_at_once() -> None:
    """End the process; as safe as SIGKILL. Not even another thread's output is waited for."""
    os.write(2, b"stopped before everything was closed; what was confirmed is safe\n")
    os._exit(1)


async def _serve_until_signal(
    options: ServeOptions,
    directory: DataDirectory,
    tokens: Tokens,
    operator: Credentials,
    storage: ServerStorage,
    stop: "_Stop",
    nursery: trio.Nursery,
    started: Callable[[Running], None],
) -> None:
    settings = directory.settings
    host_settings = _host_settings(options, settings, operator)
    closed = trio.Event()
    http = HttpClient(settings.module_http)
    cache = CompiledCacheDirectory(directory.path / "cache")
    aside = partial(load_aside, call_seconds_max=settings.stdb.reducer_seconds_max, cache=cache)
    with open_deadline(settings.stdb.reducer_seconds_max) as deadline:
        async with Host.open(
            storage, load_program, host_settings, load_aside=aside, deadline=deadline, http=http
        ) as host:
            door = FrontDoor(host, tokens, settings, operator=operator.identity)
            listeners = await trio.open_tcp_listeners(options.port, host=options.host)
            await nursery.start(_serve_door, door, listeners, closed)
            port: int = listeners[0].socket.getsockname()[1]
            published = [await _publish(host, operator, publication) for publication in options.publications]
            started(Running(f"{_in_url(options.host)}:{port}", port, directory.path, tuple(published)))
            await stop.wait()
            limit = threading.Timer(SHUTDOWN_SECONDS_MAX, _end_at_once)
            limit.daemon = True
            limit.start()
            door.stop_accepting()
        with trio.move_on_after(CLOSING_SECONDS_MAX):  # closing handshakes of clients that answer
            await closed.wait()
        limit.cancel()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _serve_door(
    door: FrontDoor,
    listeners: list[trio.SocketListener],
    closed: trio.Event,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    try:
        await door.serve(listeners, task_status=task_status)
    finally:
        closed.set()


def _host_settings(options: ServeOptions, settings: Settings, operator: Credentials) -> HostSettings:
    return HostSettings(
        operator=operator.identity,
        sql=options.sql or settings.stdb.sql,
        initial_bytes_max=settings.stdb.initial_bytes_max,
        query_rows_max=settings.stdb.query_rows_max,
        queued_requests_max=settings.websocket.incoming_queue_length,
    )


async def _publish(host: Host, operator: Credentials, publication: Publication) -> tuple[str, str]:
    policy = Policy(breaks_clients=True)  # there are no clients yet
    host_type, program = host_type_of(publication.program), publication.program
    result = await host.publish(
        operator.identity,
        program,
        name=publication.name,
        host_type=host_type,
        policy=policy,
        environment=EnvironmentChange(publication.environment),
    )
    return publication.name, result.identity[::-1].hex()


def _prepare_process() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
