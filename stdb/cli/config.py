"""The command line's own file `cli.toml`: known servers, the default one, the stored token.

Official format (spec 05 section 3.5), one server `local` to begin with; comments and order survive a save.
"""

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from stdb.cli.errors import CliError

__all__ = ["DEFAULT_HOST", "Config", "Server", "config_path", "data_home", "server_at"]

DEFAULT_HOST = "127.0.0.1:3000"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
FRESH = f"""\
default_server = "local"

[[server_configs]]
nickname = "local"
host = "{DEFAULT_HOST}"
protocol = "http"
"""
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+|\[[0-9a-fA-F:.]+\]:\d+")


@dataclass(frozen=True, slots=True)
class Server:
    """A server to talk to; `nickname` is None when it was given by address."""

    nickname: str | None
    host: str
    protocol: str = "http"
    fingerprint: str | None = None
    """The public key (PEM) that the server had when it was saved."""

    @property
    def name(self) -> str:
        """Return what the command line calls it: the nickname, else the address."""
        return self.nickname or self.host

    @property
    def url(self) -> str:
        """Return the base URL, without a trailing slash."""
        return f"{self.protocol}://{self.host}"

    @property
    def is_local(self) -> bool:
        """Tell whether the server is on this machine."""
        return re.sub(r":\d+$", "", self.host) in LOCAL_HOSTS


def config_path(override: str | None) -> Path:
    """Return where `cli.toml` lies: the override, else `$XDG_CONFIG_HOME/stdb/cli.toml`."""
    if override:
        return Path(override)
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "stdb" / "cli.toml"


def data_home() -> Path:
    """Return the default data directory: `$XDG_DATA_HOME/stdb`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "stdb"


class Config:
    """An open `cli.toml`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._document = tomlkit.parse(path.read_text("utf-8"))
        except FileNotFoundError:
            self._document = tomlkit.parse(FRESH)
        except (TOMLKitError, UnicodeDecodeError) as error:
            raise CliError(f"{path} is not valid TOML: {error}. Mend or remove the file.") from error
        except OSError as error:
            raise CliError(f"cannot read {path}: {error.strerror}. Choose another file with --config-path.") from error

    @property
    def token(self) -> str | None:
        """Return the stored token, if there is one."""
        token = self._document.get("spacetimedb_token")
        return str(token) if token else None

    def store_token(self, token: str | None) -> None:
        """Store or (None) forget the token and save the file."""
        if token is None:
            self._document.pop("spacetimedb_token", None)
        else:
            self._document["spacetimedb_token"] = token
        self.save()

    @property
    def default(self) -> str | None:
        """Return the nickname or address of the default server."""
        name = self._document.get("default_server")
        return str(name) if name else None

    @default.setter
    def default(self, name: str | None) -> None:
        if name is None:
            self._document.pop("default_server", None)
        else:
            self._document["default_server"] = name

    def is_default(self, server: Server) -> bool:
        """Tell whether a saved server is the default one."""
        return self.default is not None and self.default in (server.nickname, server.host)

    @property
    def servers(self) -> list[Server]:
        """Return the saved servers in their order."""
        return [_server(entry) for entry in self._known()]

    def saved(self, name: str) -> Server:
        """Return the saved server of that nickname or address."""
        return _server(self._known()[self._place(name)])

    def put_server(self, server: Server, instead_of: str | None = None) -> None:
        """Add a server, or put it in the place of the one of that nickname or address."""
        words: dict[str, Any] = {"nickname": server.nickname, "host": server.host, "protocol": server.protocol}
        if server.fingerprint is not None:
            words["ecdsa_public_key"] = tomlkit.value(f'"""\n{server.fingerprint}"""')
        if instead_of is None:
            table, tables = tomlkit.table(), self._document.setdefault("server_configs", tomlkit.aot())
            if tables:
                tables[-1].add(tomlkit.nl())
            tables.append(table)
        else:
            table = self._document["server_configs"][self._place(instead_of)]
            table.pop("ecdsa_public_key", None)
        table.update({name: value for name, value in words.items() if value is not None})

    def drop_server(self, name: str) -> None:
        """Forget a saved server."""
        del self._document["server_configs"][self._place(name)]

    def save(self) -> None:
        """Write the file, whole or not at all."""
        try:
            self._write()
        except OSError as error:
            raise CliError(f"cannot write {self.path}: {error.strerror}. Choose another with --config-path.") from error

    def server(self, name: str | None) -> Server:
        """Return the server of that nickname, `HOST:PORT` or URL; the default one for None."""
        name = name or os.environ.get("STDB_SERVER") or self.default
        if not name:
            raise CliError("No default server configuration. Give one with --server URL.")
        if "://" in name:
            server = server_at(name)
            if server is None:
                raise CliError(f"--server {name} is no server: give http://HOST:PORT or https://HOST", exit_code=2)
            return server
        if _HOST_AND_PORT.fullmatch(name) and not any(name in (each.nickname, each.host) for each in self.servers):
            return Server(None, name)
        return self.saved(name)

    def _place(self, name: str) -> int:
        """Return the place of a saved server in the file; CliError when there is none of that nickname or address."""
        for i, entry in enumerate(self._known()):
            if name in (entry.get("nickname"), entry["host"]):
                return i
        raise CliError(
            f"No such saved server configuration: {name}\n"
            f"Add a new server configuration with:\n\tpython -m stdb server add {name} --url <url>",
            hint=f"Known servers are in {self.path}; a server may also be given as a URL: --server http://HOST:PORT",
        )

    def _known(self) -> list[dict[str, Any]]:
        entries = self._document.unwrap().get("server_configs", [])
        if not isinstance(entries, list) or not all(isinstance(each, dict) and "host" in each for each in entries):
            raise CliError(f"{self.path}: every [[server_configs]] needs a host. Mend or remove the file.")
        return entries

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".cli-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(f"{tomlkit.dumps(self._document).rstrip()}\n")
            os.replace(temporary, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _server(entry: dict[str, Any]) -> Server:
    """Return the server of a `[[server_configs]]`."""
    key = entry.get("ecdsa_public_key")
    return Server(entry.get("nickname"), str(entry["host"]), str(entry.get("protocol", "http")), key)


def server_at(url: str, nickname: str | None = None) -> Server | None:
    """Return the server of a URL, or None when the URL is none of a server."""
    protocol, _, host = url.partition("://")
    host = host.rstrip("/")
    return Server(nickname, host, protocol) if protocol in ("http", "https") and host and "/" not in host else None
