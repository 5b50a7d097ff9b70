"""`cli.toml`, `--server`, `--version`, usage errors, and the packing of programs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stdb.cli.config import Config, Server
from stdb.cli.errors import CliError
from stdb.cli.pack import read_program
from stdb.cli.running import announced, data_directory_of
from stdb.cli.version import _checkout_version, version
from stdb.modules.python.archive import unpack
from stdb.storage.data_directory import DataDirectory
from tests.cli_harness import own_place, run
from tests.interop.npm import ROOT


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    with own_place(tmp_path / "home"):
        yield tmp_path


COMMANDS = [
    *("serve", "publish", "call", "sql", "logs", "subscribe", "describe", "delete", "list", "restart", "recover"),
    *(
        "login",
        "logout",
        "grant",
        "revoke",
        "grants",
        "init",
        "build",
        "rename",
        "server",
        "start",
        "version",
        "energy",
    ),
]


# --------------------------------------------------------------------------------------------------- usage
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: python -m stdb {command}")
    assert command in run("--help").out


def test_the_version_is_the_packages() -> None:
    assert run("--version") == (0, f"stdb {version()}\n", "")
    assert run("-V").out == run("--version").out == run("version").out


def test_a_checkout_that_is_not_installed_has_a_version(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    assert _checkout_version(tmp_path / "pyproject.toml") == "1.2.3+checkout"
    assert _checkout_version(tmp_path / "nosuch.toml") == "unknown"
    assert _checkout_version(ROOT / "pyproject.toml").endswith("+checkout")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nosuch"],
        ["publish", "--nosuchflag"],
        ["call"],
        ["sql", "x"],
        ["describe", "x"],
        ["list", "--anonymous"],
        ["sql", "x", "select 1", "--confirmed"],
        ["subscribe", "x", "q", "-t", "long"],
        ["subscribe", "x", "q", "-t", "nan"],
        ["logs", "x", "-n", "4294967296"],
        ["publish", "x", "-p", "a", "-b", "b"],
        ["login", "--token", "a", "--server-issued-login", "b"],
        ["sql", "x", "select 1", "--interactive"],
        ["publish", "a/b", "--parent", "c"],
        ["publish", "x", "-b", "a", "-j", "b"],
        ["init"],
        ["init", "--lang", "csharp"],
        ["server"],
        ["server", "ping"],
        ["server", "add", "x"],
        ["rename", "x"],
        ["serve", "-l", "3000"],
        ["serve", "-l", "::1:3000"],
        ["serve", "-l", "127.0.0.1:65536"],
        ["serve", "--sql", "nobody"],
        ["serve", "--publish", "examples/quickstart_chat=Bad_Name"],
        ["list", "-s", "ftp://x"],
        ["list", "-s", "http://"],
        ["list", "-s", "http://h:x"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "error: " in err.lower()


def test_a_server_that_does_not_answer_is_an_error_that_says_how_to_start_one() -> None:
    code, out, err = run("list", "-s", "http://127.0.0.1:1")
    assert (code, out) == (1, "")
    assert err.startswith("Error: error sending request for url (http://127.0.0.1:1/v1/identity)\n\nCaused by:\n    ")
    assert err.endswith("`python -m stdb serve -l 127.0.0.1:1` starts one.\n")


# --------------------------------------------------------------------------------------------------- cli.toml
def test_the_first_file_is_in_the_official_format(tmp_path: Path) -> None:
    path = tmp_path / "a" / "cli.toml"
    Config(path).store_token("e30.e30.e30")
    assert path.read_text() == (
        'default_server = "local"\nspacetimedb_token = "e30.e30.e30"\n\n'
        '[[server_configs]]\nnickname = "local"\nhost = "127.0.0.1:3000"\nprotocol = "http"\n'
    )


def test_comments_and_order_survive_a_save(tmp_path: Path) -> None:
    path = tmp_path / "cli.toml"
    text = '# mine\n[[server_configs]]\nhost = "a:1" # here\nnickname = "x"\n\n[other]\nz = 1\n'
    path.write_text(text)
    Config(path).store_token("t")
    assert Config(path).token == "t"
    Config(path).store_token(None)
    assert path.read_text().strip() == text.strip()
    assert list(tmp_path.glob(".cli-*")) == []


@pytest.mark.parametrize(
    ("name", "server"),
    [
        (None, Server("local", "127.0.0.1:3000")),
        ("local", Server("local", "127.0.0.1:3000")),
        ("127.0.0.1:3000", Server("local", "127.0.0.1:3000")),
        ("http://h:1/", Server(None, "h:1")),
        ("https://h", Server(None, "h", "https")),
        ("h:1", Server(None, "h:1")),
        ("[::1]:3000", Server(None, "[::1]:3000")),
    ],
)
def test_a_server_is_a_nickname_an_address_or_a_url(tmp_path: Path, name: str | None, server: Server) -> None:
    assert Config(tmp_path / "none").server(name) == server


def test_the_environment_names_the_default_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STDB_SERVER", "https://far.example")
    assert Config(tmp_path / "none").server(None).url == "https://far.example"
    assert Config(tmp_path / "none").server("local").url == "http://127.0.0.1:3000"


def test_an_unknown_server_is_an_error_that_says_where_servers_are_known(tmp_path: Path) -> None:
    with pytest.raises(CliError) as unknown:
        Config(tmp_path / "none").server("nosuch")
    assert unknown.value.render() == (
        "Error: No such saved server configuration: nosuch\nAdd a new server configuration with:\n"
        "\tpython -m stdb server add nosuch --url <url>\n\n"
        f"Known servers are in {tmp_path / 'none'}; a server may also be given as a URL: --server http://HOST:PORT"
    )


def test_no_default_server_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cli.toml").write_text("")
    with pytest.raises(CliError, match=r"^No default server configuration\. Give one with --server URL\."):
        Config(tmp_path / "cli.toml").server(None)


@pytest.mark.parametrize("text", [b"[", b"\xff", b"server_configs = 1\n", b"[[server_configs]]\nnickname = 'x'\n"])
def test_a_damaged_file_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "cli.toml").write_bytes(text)
    with pytest.raises(CliError, match=r"cli\.toml.*Mend or remove the file"):
        Config(tmp_path / "cli.toml").server("x")


def test_a_file_that_cannot_be_read_or_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"cannot read .*Is a directory"):
        Config(tmp_path)
    (tmp_path / "file").touch()
    config = Config(tmp_path / "none")
    config.path = tmp_path / "file" / "cli.toml"
    with pytest.raises(CliError, match=r"cannot write .*File exists"):
        config.store_token("t")


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1:3000", True), ("localhost", True), ("[::1]:1", True), ("[::1]", True), ("example.org:3000", False)],
)
def test_local_servers_are_told_apart(host: str, is_local: bool) -> None:
    assert Server(None, host).is_local is is_local


# --------------------------------------------------------------------------------------------------- notes
def test_a_note_counts_while_its_server_holds_the_lock(tmp_path: Path) -> None:
    with announced(3000, tmp_path / "data"):
        assert data_directory_of("127.0.0.1:3000") is None
        with DataDirectory(tmp_path / "data"):
            assert data_directory_of("127.0.0.1:3000") == tmp_path / "data"
            assert data_directory_of("127.0.0.1") is None
        assert data_directory_of("127.0.0.1:3000") is None
    with DataDirectory(tmp_path / "data"):
        assert data_directory_of("127.0.0.1:3000") is None


def test_the_note_of_another_server_on_the_same_port_stays(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "second"):
        with announced(3000, tmp_path / "first"):
            with announced(3000, tmp_path / "second"):
                pass
            assert data_directory_of("[::1]:3000") is None
        second = announced(3000, tmp_path / "second")
        with announced(3000, tmp_path / "first"):
            second.__enter__()
        assert data_directory_of("[::1]:3000") == tmp_path / "second"
        second.__exit__(None, None, None)


# --------------------------------------------------------------------------------------------------- programs
def test_a_directory_is_packed_without_what_gitignore_names(tmp_path: Path) -> None:
    package = tmp_path / "my-game"
    (package / "deep").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    (package / "__pycache__/x.pyc").touch()
    for name in ("__init__.py", "deep/a.py", "deep/a.log", "out.log"):
        (package / name).write_text("x = 1\n")
    (package / ".gitignore").write_text("*.log\n")
    (package / "link.py").symlink_to("/etc/hostname")
    program = read_program(package)
    assert program.host_type == "Python"
    assert set(unpack(program.body)) == {"my_game/__init__.py", "my_game/deep/a.py"}


def test_a_file_is_a_module_of_its_name_and_packed_or_wasm_files_go_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "7 chat.py").write_text("x = 1\n")
    program = read_program(tmp_path / "7 chat.py")
    assert unpack(program.body) == {"_7_chat.py": b"x = 1\n"}
    (tmp_path / "packed").write_bytes(program.body)
    assert read_program(tmp_path / "packed") == program
    (tmp_path / "m.wasm").write_bytes(b"\0asm\1\0\0\0")
    assert read_program(tmp_path / "m.wasm") == (b"\0asm\1\0\0\0", "Wasm")


def test_output_into_a_closed_pipe_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "stdb", "login", "show"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (1, b"")
