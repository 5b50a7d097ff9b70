"""The commands `server …`: which servers the command line knows, and the data of one on this machine."""

import argparse
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import httpx

from stdb.cli.api import Api
from stdb.cli.config import Config, Server, data_home, server_at
from stdb.cli.databases import confirm
from stdb.cli.errors import CliError
from stdb.errors import StorageError
from stdb.storage.data_directory import DataDirectory

__all__ = ["add", "clear", "edit", "fingerprint", "list_servers", "ping", "remove", "set_default"]

_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+-----END PUBLIC KEY-----\n*")
HEADERS = ("DEFAULT", "HOSTNAME", "PROTOCOL", "NICKNAME")


def list_servers(config: Config, options: argparse.Namespace) -> None:
    """Print the saved servers as a table; stars mark the default one."""
    rows = [HEADERS]
    for server in config.servers:
        star = "***" if config.is_default(server) else ""
        rows.append((star, server.host, server.protocol, server.nickname or ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADERS))]
    for default, *others in rows:
        cells = [default.rjust(widths[0]), *(text.ljust(width) for text, width in zip(others, widths[1:], strict=True))]
        print("".join(f" {cell} " for cell in cells))


def set_default(config: Config, options: argparse.Namespace) -> None:
    """Let commands without `--server` talk to this server."""
    try:
        server = config.saved(options.saved)
    except CliError as error:
        raise CliError(f"Cannot set default server to unknown server {options.saved}", str(error)) from error
    config.default = server.name
    _save(config)


def add(config: Config, options: argparse.Namespace) -> None:
    """Save a server under a nickname, with its public key."""
    server = _at(options.url, options.saved)
    for known in config.servers:
        if known.nickname == options.saved:
            raise CliError(f"Server nickname {options.saved} already in use: {known.url}")
        if known.host == server.host:
            raise CliError(f"Server host {server.host} is already saved as {known.name}: {known.url}")
    if not options.no_fingerprint:
        server = _added_with_key(config, server)
    print(f"Host: {server.host}")
    print(f"Protocol: {server.protocol}")
    config.put_server(server)
    if options.default:
        config.default = server.name
    _save(config)


def remove(config: Config, options: argparse.Namespace) -> None:
    """Forget a saved server."""
    server = config.saved(options.saved)
    config.drop_server(server.name)
    if config.is_default(server):
        config.default = None
        print(f"{server.name} was the default server; `python -m stdb server set-default SERVER` chooses another.")
    _save(config)


def fingerprint(config: Config, options: argparse.Namespace) -> None:
    """Compare a server's public key with the saved one; save a new one after a question."""
    server = config.saved(options.saved)
    key = _key(config, server)
    if key == server.fingerprint:
        print(f"Fingerprint is unchanged for server {server.name}:\n{key}")
        return
    if server.fingerprint is None:
        print(f"No saved fingerprint for server {server.name}. New fingerprint:\n{key}")
    else:
        print(f"Fingerprint has changed for server {server.name}. Saved fingerprint:\n{server.fingerprint}")
        print(f"New fingerprint:\n{key}")
    _continue(options)
    config.put_server(_with_key(server, key), instead_of=server.name)
    _save(config)


def ping(config: Config, options: argparse.Namespace) -> None:
    """Tell whether a server answers."""
    server = config.server(options.saved)
    with Api(config, server, anonymous=True) as api:
        response = api.request("GET", "/v1/ping")
    status = f"{response.status_code} {response.reason_phrase}"
    if response.is_success:
        print(f"Server is online: {server.url}")
    elif response.status_code == 404:
        print(f"Server returned 404 (Not Found): {server.url}")
    else:
        print(f"Server could not be reached ({status}): {server.url}")


def edit(config: Config, options: argparse.Namespace) -> None:
    """Change a saved server's nickname or address."""
    old = config.saved(options.saved)
    new = _at(options.url, old.nickname) if options.url else old
    new = replace(new, nickname=options.new_name or old.nickname)
    if options.new_name:
        print(f"Changing nickname from {old.nickname} to {new.nickname}")
    if options.url:
        print(f"Changing host from {old.host} to {new.host}")
        print(f"Changing protocol from {old.protocol} to {new.protocol}")
    for known in config.servers:
        if known != old and (known.nickname == new.nickname or known.host == new.host):
            raise CliError(f"Server {known.name} has this nickname or host already: {known.url}")
    if options.url and not options.no_fingerprint:
        try:
            new = _with_key(new, _key(config, new))
        except CliError as error:
            raise CliError("Error fetching server fingerprint", str(error), *error.causes, hint=error.hint) from error
    _continue(options)
    was_default = config.is_default(old)
    config.put_server(new, instead_of=old.name)
    if was_default:
        config.default = new.name
    _save(config)


def clear(options: argparse.Namespace) -> None:
    """Delete the data directory of a server on this machine that does not run."""
    path = Path(options.data_dir) if options.data_dir else data_home()
    if not (path / "metadata.toml").exists():
        raise CliError(f"{path} is no data directory of stdb. Name it with --data-dir, as `serve` printed it.")
    print(f"Database path: {path}")
    try:
        with DataDirectory(path):
            if not confirm("Are you sure you want to delete all data from the local database?", options.yes):
                print("Aborting")
                return
            shutil.rmtree(path)
    except StorageError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(f"cannot delete {error.filename}: {error.strerror}") from error
    print(f"Deleted database: {path}")


# --------------------------------------------------------------------------------------------------- parts
def _at(url: str, nickname: str | None) -> Server:
    server = server_at(url, nickname)
    if server is None:
        raise CliError(f"Invalid url: {url}", hint="A server's URL is http://HOST:PORT or https://HOST.")
    return server


def _with_key(server: Server, key: str) -> Server:
    return replace(server, fingerprint=key)


def _added_with_key(config: Config, server: Server) -> Server:
    try:
        return _with_key(server, _key(config, server))
    except CliError as error:
        raise CliError(
            f"Unable to retrieve fingerprint for server: {server.url}\nIs the server running?\n"
            "Add a server without retrieving its fingerprint with:\n"
            f"\tpython -m stdb server add --url {server.url} {server.nickname} --no-fingerprint",
            str(error),
            *error.causes,
        ) from error


def _key(config: Config, server: Server) -> str:
    """Return the public key that a server signs its tokens with, as PEM."""
    with Api(config, server, anonymous=True) as api:
        response = api.request("GET", "/v1/identity/public-key")
    return _pem(response)


def _pem(response: httpx.Response) -> str:
    if response.status_code != 200 or not _PEM.fullmatch(response.text):
        raise CliError(f"{response.request.url} answered no public key; is it a server of stdb's kind?")
    return response.text


def _continue(options: argparse.Namespace) -> None:
    if not confirm("Continue?", options.yes):
        raise CliError("Aborted")


def _save(config: Config) -> None:
    config.save()
    print(f"Saving config to {config.path}.", file=sys.stderr)
