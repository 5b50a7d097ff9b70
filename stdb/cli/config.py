"""The command line's own file `cli.toml`: known servers, the default one, the stored token.

Official format (spec 05 section 3.5), one server `local` to begin with; comments and order survive a save.
"""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from stdb.cli.errors import CliError

__all__ = ["DEFAULT_HOST", "Config", "Server", "config_path", "data_home"]

DEFAULT_HOST = "127.0.0.1:3000"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")


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
        name = self.host.rsplit(":", 1)[0] if not self.host.endswith("]") else self.host
        return name in LOCAL_HOSTS


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
            text = path.read_text()
        except FileNotFoundError:
            text = f'default_server = "local"\n\n[[server_configs]]\nnickname = "local"\nhost = "{DEFAULT_HOST}"\n'
            text += 'protocol = "http"\n'
        try:
            self._document = tomlkit.parse(text)
        except TOMLKitError as error:
            raise CliError(f"{path} is not valid TOML: {error}. Mend or remove the file.") from error

    @property
    def token(self) -> str | None:
        """Return the stored token, if there is one."""
        token = self._document.get("spacetimedb_token")
        return str(token) if token else None

    def store_token(self, token: str | None) -> None:
        """Store or (None) forget the token and save the file."""
        if token is None:
            self._document.pop("spacetimedb_token", None)
        elif "spacetimedb_token" in self._document or not self._document:
            self._document["spacetimedb_token"] = token
        else:
            head = tomlkit.parse(f'spacetimedb_token = "{token}"\n')
            head.update(self._document)
            self._document = head
        self._save()

    def server(self, name: str | None) -> Server:
        """Return the server of that nickname, host or URL; the default one for None."""
        name = name or os.environ.get("STDB_SERVER") or str(self._document.get("default_server") or "")
        if not name:
            raise CliError("No default server configuration. Give one with --server URL.")
        if "://" in name:
            protocol, _, host = name.partition("://")
            if protocol not in ("http", "https"):
                raise CliError(f"The server {name} has the protocol {protocol}; only http and https are known.")
            return Server(None, host.rstrip("/"), protocol)
        for entry in self._document.get("server_configs", []):
            if name in (entry.get("nickname"), entry.get("host")):
                return Server(entry.get("nickname"), str(entry["host"]), str(entry.get("protocol", "http")))
        raise CliError(
            f"No such saved server configuration: {name}\n"
            f"Known servers are in {self.path}; a server may also be given as a URL: --server http://HOST:PORT"
        )

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".cli-")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(tomlkit.dumps(self._document))
            os.replace(temporary, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
