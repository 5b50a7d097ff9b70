"""The data directory: one server's place on disk, locked for as long as it runs.

Responsible for: the layout of DESIGN decision 5, its lock, format version, settings and secret files.
Not responsible for: what the files hold (`control`, `log`, `module_log`), making keys and tokens (`stdb.net`).
"""

import fcntl
import os
import tomllib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from stdb.errors import StorageError
from stdb.storage.settings import Settings, parse_settings

__all__ = ["FORMAT_VERSION", "DataDirectory"]

FORMAT_VERSION = 1
"""Version of the layout; a directory of a newer one is refused."""

_BEFORE_THE_FIRST_START = frozenset(
    ("stdb.lock", "config.toml", "id_ecdsa", "id_ecdsa.pub", ".metadata.toml.new", "lost+found")
)
"""What may be there although no server was: what an operator put there, what a start that failed left."""

_METADATA = """\
# This directory belongs to a stdb server. Do not edit, and do not share it between two servers.
format = {format}
"""


class DataDirectory:
    """An open data directory. The lock is held until `close` (or the end of the process)."""

    def __init__(self, path: str | Path) -> None:
        """Make the directory if it is missing, lock it, check its format, read its settings.

        Raises:
            StorageError: Another server runs in it (names its pid), it is somebody else's, its format is newer, or a
                file is unreadable. A directory that is refused was not touched.
        """
        self.path = Path(path)
        _check_owner(self.path)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "stdb.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            self._take_lock()
            self._check_metadata()
            self.settings = self._read_settings()
            for name in ("databases", "logs"):
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, OSError):
                raise _unusable(self.path, error) from error
            raise

    def close(self) -> None:
        """Release the lock."""
        with suppress(OSError):
            os.ftruncate(self._lock, 0)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def control_path(self) -> Path:
        """Return where the control store is."""
        return self.path / "control.sqlite"

    def database_path(self, identity: bytes) -> Path:
        """Return where the log of a database is; `identity` is 32 bytes, little-endian."""
        return self.path / "databases" / f"{identity[::-1].hex()}.sqlite"

    def module_log_path(self, identity: bytes) -> Path:
        """Return the directory of a database's module log; it may not exist yet."""
        return self.path / "logs" / identity[::-1].hex()

    def read_text(self, name: str) -> str | None:
        """Return the text of a file of this directory, or None when there is none.

        Raises:
            StorageError: It cannot be read.
        """
        return _read_text(self.path / name)

    def write_secret(self, name: str, text: str) -> None:
        """Write a file (also one elsewhere, by absolute path) that only this user may read, whole or not at all.

        Raises:
            StorageError: It cannot be written.
        """
        target = self.path / name
        temporary = target.with_name(f".{target.name}.new")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error}") from error

    # ------------------------------------------------------------------ inside
    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StorageError(
                f"another stdb server runs in {self.path} (pid {owner}); stop it, or choose another --data-dir"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _check_metadata(self) -> None:
        path = self.path / "metadata.toml"
        text = _read_text(path)
        if text is None:
            self.write_secret("metadata.toml", _METADATA.format(format=FORMAT_VERSION))
            return
        try:
            version = tomllib.loads(text).get("format")
        except tomllib.TOMLDecodeError as error:
            raise StorageError(f"invalid TOML syntax in {path}: {error}") from error
        if type(version) is not int or version < 1:
            raise StorageError(f"{path} does not say which format this directory has: is it one of stdb's?")
        if version > FORMAT_VERSION:
            raise StorageError(
                f"{path} says format {version}, this stdb knows formats up to {FORMAT_VERSION}: run a newer stdb"
            )

    def _read_settings(self) -> Settings:
        path = self.path / "config.toml"
        text = _read_text(path)
        return Settings() if text is None else parse_settings(text, str(path))


def _check_owner(path: Path) -> None:
    """Refuse a directory that something else lives in, before anything is written there."""
    try:
        found = set(os.listdir(path))
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error) from error
    strange = sorted(found - _BEFORE_THE_FIRST_START)
    if strange and "metadata.toml" not in found:
        raise StorageError(
            f"{path} is no data directory of stdb: it has no metadata.toml, but there is {strange[0]}; "
            "choose an empty or a new one with --data-dir"
        )


def _unusable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot use the data directory {path}: {error.strerror or error}")


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
