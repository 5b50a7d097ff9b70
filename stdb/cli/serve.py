"""The command `serve`: run a server on this machine."""

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from stdb.cli.config import data_home
from stdb.cli.errors import CliError
from stdb.cli.pack import read_program
from stdb.cli.running import announced
from stdb.errors import StdbError
from stdb.sats.names import database_name_error
from stdb.server import Publication, Running, ServeOptions
from stdb.server import serve as run_server

__all__ = ["serve"]

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def serve(options: argparse.Namespace) -> int:
    """Run a server until it is told to stop."""
    host, port = _address(options.listen_addr)
    directory = Path(options.data_dir) if options.data_dir else data_home()
    publications = tuple(_publication(text) for text in options.publish)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with contextlib.ExitStack() as notes:

        def started(running: Running) -> None:
            notes.enter_context(announced(running.port, running.data_directory))
            _print_started(running)

        try:
            trio.run(run_server, ServeOptions(host, port, directory, publications, options.sql), started)
        except (OSError, StdbError, BaseExceptionGroup) as error:
            raise _explained(error, options.listen_addr) from error
    return 0


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        raise CliError(f"--listen-addr {text} is no HOST:PORT; an example is 127.0.0.1:3000", exit_code=2)
    return host.strip("[]"), int(port)


def _publication(text: str) -> Publication:
    """Return what `PATH[=NAME]` says; the name is else made of the path's last part."""
    path, equals, name = text.rpartition("=")
    if not equals:
        path, name = text, Path(text).resolve().stem.lower().replace("_", "-")
    if reason := database_name_error(name):
        raise CliError(f"--publish {text}: {reason}: `{name}`. Name the database: --publish PATH=NAME", exit_code=2)
    return Publication(name, read_program(Path(path)).body)


def _print_started(running: Running) -> None:
    print(f"stdb is listening on http://{running.address}")
    print(f"data: {running.data_directory.resolve()}")
    for name, identity in running.published:
        print(f"published {name}, identity: {identity}")
    print(f"publish a module: python -m stdb publish -p PATH NAME --server http://{running.address}", flush=True)


def _explained(error: BaseException, address: str) -> BaseException:
    """Return what to tell of a failed start; a mistake of our own stays as it is."""
    for leaf in _leaves(error):
        if isinstance(leaf, StdbError):
            return CliError(str(leaf).rstrip())
        if isinstance(leaf, OSError):
            reason = leaf.strerror or str(leaf)
            return CliError(f"cannot listen on {address}: {reason}. Stop what listens there or choose --listen-addr.")
    return error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
