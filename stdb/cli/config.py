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

__all__ = ["DEFAULT_HOST", "Config", "Server", "config_path", "data_home"]

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
        try:
            self._save()
        except OSError as error:
            raise CliError(f"cannot write {self.path}: {error.strerror}. Choose another with --config-path.") from error

    def server(self, name: str | None) -> Server:
        """Return the server of that nickname, `HOST:PORT` or URL; the default one for None."""
        name = name or os.environ.get("STDB_SERVER") or str(self._document.get("default_server") or "")
        if not name:
            raise CliError("No default server configuration. Give one with --server URL.")
        if "://" in name:
            return _from_url(name)
        for entry in self._known():
            if name in (entry.get("nickname"), entry["host"]):
                return Server(entry.get("nickname"), str(entry["host"]), str(entry.get("protocol", "http")))
        if _HOST_AND_PORT.fullmatch(name):
            return Server(None, name)
        raise CliError(
            f"No such saved server configuration: {name}\n"
            f"Known servers are in {self.path}; a server may also be given as a URL: --server http://HOST:PORT"
        )

    def _known(self) -> list[dict[str, Any]]:
        entries = self._document.unwrap().get("server_configs", [])
        if not isinstance(entries, list) or not all(isinstance(each, dict) and "host" in each for each in entries):
            raise CliError(f"{self.path}: every [[server_configs]] needs a host. Mend or remove the file.")
        return entries

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".cli-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(tomlkit.dumps(self._document))
            os.replace(temporary, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _from_url(url: str) -> Server:
    protocol, _, host = url.partition("://")
    host = host.rstrip("/")
    if protocol not in ("http", "https") or not host or "/" in host:
        raise CliError(f"--server {url} is no server: give http://HOST:PORT or https://HOST", exit_code=2)
    return Server(None, host, protocol)
