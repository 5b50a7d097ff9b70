"""The data directory: locked, private, versioned, with settings that are checked at the start."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stdb.errors import StorageError
from stdb.storage.data_directory import DataDirectory
from stdb.storage.settings import Settings, parse_duration, parse_settings


def test_a_new_directory_is_private_and_says_its_format(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "deep" / "data") as directory:
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
        assert "format = 1" in (directory.path / "metadata.toml").read_text()
        assert (directory.path / "stdb.lock").read_text() == f"{os.getpid()}\n"
        assert directory.settings == Settings()
        assert directory.database_path(bytes([1]) + bytes(31)).name == "00" * 31 + "01.sqlite"


def test_a_second_server_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    with DataDirectory(tmp_path):
        program = f"from stdb.storage.data_directory import DataDirectory\nDataDirectory({str(tmp_path)!r})"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert second.returncode == 1
    assert f"(pid {os.getpid()})" in second.stderr
    with DataDirectory(tmp_path):
        pass  # the lock is free again


def test_secrets_are_readable_by_this_user_alone(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        assert directory.read_text("operator.token") is None
        directory.write_secret("operator.token", "text")
        directory.write_secret("operator.token", "other")
        assert directory.read_text("operator.token") == "other"
        assert stat.S_IMODE((tmp_path / "operator.token").stat().st_mode) == 0o600


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.toml").write_text("format = 2\n")
    with pytest.raises(StorageError, match="says format 2, this stdb knows formats up to 1: run a newer stdb"):
        DataDirectory(tmp_path)


@pytest.mark.parametrize("text", ["format = 'x'", "edition = 'standalone'", "format = true", "format = 0"])
def test_a_directory_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.toml").write_text(text)
    with pytest.raises(StorageError, match="is it one of stdb's"):
        DataDirectory(tmp_path)


def test_the_directory_is_free_again_after_a_refused_start(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[websocket]\nping-interval = 'often'")
    with pytest.raises(StorageError, match=r"invalid TOML syntax in .*config\.toml"):
        DataDirectory(tmp_path)
    (tmp_path / "config.toml").write_text("[websocket]\nping-interval = '5s'")
    with DataDirectory(tmp_path) as directory:
        assert directory.settings.websocket.ping_seconds == 5


def test_settings_ignore_what_they_do_not_know() -> None:
    text = "[commitlog]\nmax-segment-size = 1\n[websocket]\nother = 1\nidle-timeout = '1m 30s'\n[stdb]\nsql = 'owner'\n"
    settings = parse_settings(text, "config.toml")
    assert settings.websocket.idle_seconds_max == 90
    assert settings.stdb.sql == "owner"


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[websocket]\nincoming-queue-length = 'x'",
        "[websocket]\nping-interval = '0s'",
        "[stdb]\nsql = 'all'",
        "[stdb]\nreducer-timeout = '1 parsec'",
    ],
)
def test_wrong_settings_stop_the_start(text: str) -> None:
    with pytest.raises(StorageError, match=r"invalid TOML syntax in config\.toml"):
        parse_settings(text, "config.toml")


def test_durations_add_up_and_bad_ones_say_where() -> None:
    assert parse_duration("250ms") == 0.25
    assert parse_duration("1h 2min 3s") == 3723
    with pytest.raises(ValueError, match="expected number at 0"):
        parse_duration("")
    with pytest.raises(ValueError, match="expected number at 2"):
        parse_duration("1s-1s")
