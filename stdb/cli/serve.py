"""The command `serve`: run a server on this machine.

Responsible for: its options, what it prints, what a failed start tells.
Not responsible for: running (`stdb.server`).
"""

import argparse
import contextlib
import errno
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from stdb.actors.refusals import PublishFailed
from stdb.cli.build import build_program
from stdb.cli.config import data_home
from stdb.cli.environment import environment_values
from stdb.cli.errors import CliError
from stdb.cli.running import announced
from stdb.errors import StdbError
from stdb.sats.names import database_name_error
from stdb.server import Publication, Running, ServeOptions
from stdb.server import serve as run_server

__all__ = ["serve"]

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""What stands for all addresses of a machine, and how the machine itself gets there."""


def serve(options: argparse.Namespace) -> None:
    """Run a server until it is told to stop."""
    host, port = _address(options.listen_addr)
    directory = Path(options.data_dir) if options.data_dir else data_home()
    environment = environment_values(options)
    publications = tuple(_publication(text, environment) for text in options.publish)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    running: list[Running] = []
    with contextlib.ExitStack() as notes:

        def started(now: Running) -> None:
            running.append(now)
            notes.enter_context(announced(now.port, now.data_directory))
            _print_started(now)

        try:
            trio.run(run_server, ServeOptions(host, port, directory, publications, options.sql), started)
        except (OSError, StdbError, BaseExceptionGroup) as error:
            told = None if running else _told(error, options.listen_addr)
            if told is None:  # a mistake of ours, or something that broke while it ran: the traceback is the message
                raise
            raise told from error


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (colon and bare and port.isdecimal() and int(port) < 65536) or (":" in bare and bare == host):
        raise CliError(f"--listen-addr {text} is no HOST:PORT; examples are 127.0.0.1:3000 and [::1]:3000", exit_code=2)
    return bare, int(port)


def _publication(text: str, environment: dict[str, str]) -> Publication:
    """Return what `PATH[=NAME]` says; the name is else made of the path's last part."""
    path, equals, name = text.rpartition("=")
    if not equals:
        path, name = text, Path(text).resolve().stem.lower().replace("_", "-")
    if reason := database_name_error(name):
        raise CliError(f"--publish {text}: {reason}: `{name}`. Name the database: --publish PATH=NAME", exit_code=2)
    return Publication(name, build_program(Path(path)).body, environment)


def _print_started(running: Running) -> None:
    print(f"stdb is listening on http://{running.address}")
    print(f"data: {running.data_directory.resolve()}")
    for name, identity in running.published:
        print(f"published {name}, identity: {identity}")
    host = running.address.rpartition(":")[0]
    url = f"http://{EVERYWHERE.get(host, host)}:{running.port}"
    print(f"publish a module: python -m stdb publish -p PATH NAME --server {url}", flush=True)


def _told(error: BaseException, address: str) -> CliError | None:
    """Return what to tell of a failed start; None of a mistake of our own."""
    for leaf in _leaves(error):
        if isinstance(leaf, PublishFailed) and leaf.lines:
            return CliError(str(leaf), hint="\n".join(("The module's log:", *leaf.lines)))
        if isinstance(leaf, StdbError):
            return CliError(str(leaf))
        if isinstance(leaf, OSError):
            return _cannot_listen(leaf, address)
    return None


def _cannot_listen(error: OSError, address: str) -> CliError:
    if error.errno == errno.EADDRINUSE:
        port = address.rpartition(":")[2]
        return CliError(
            f"Port {port} is already in use. Please free up the port or specify a different port with --listen-addr."
        )
    return CliError(f"cannot listen on {address}: {error.strerror or error}. Choose another --listen-addr HOST:PORT.")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
