"""Projects begun, built and published by the command line; cargo and rustc are small programs written here."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stdb.cli import templates
from stdb.cli.pack import read_program
from stdb.modules.python.loader import load_archive
from tests.cli_harness import RECORDED, Place, own_place, run
from tests.interop.processes import Server, serve
from tests.wasm_guests import module_text, wat

UNBUILT = "http://127.0.0.1:1"
"""Nobody is there: what is refused earlier never asks."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with own_place(tmp_path_factory.mktemp("home")) as place:
        yield place


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    """A server whose operator is the user of the commands."""
    with serve() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the current one."""
    directory = tmp_path / "My_Chat 2"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


class Toolchain(NamedTuple):
    """Programs that are found on the PATH, and what they do."""

    bin: Path
    project: Path

    @property
    def arguments(self) -> list[str]:
        """What cargo was given."""
        return (self.bin / "arguments").read_text().split()

    def put(self, name: str, script: str) -> None:
        """Put a program on the PATH; there are no others."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def rustc(self, *, has_target: bool) -> None:
        """Have a compiler, with WebAssembly or without."""
        self.put(
            "rustc",
            f'[ "$2 $4" = "target-libdir wasm32-unknown-unknown" ] && echo {self.bin}/{"" if has_target else "no"}',
        )

    def cargo(self, *made: str, code: int = 0, says: str = "") -> None:
        """Have a cargo that says it made these files of the project's crate."""
        artifact = {"reason": "compiler-artifact", "manifest_path": str(self.project / "Cargo.toml")}
        lines = ["compiling with a wrapper", "[]", json.dumps({**artifact, "manifest_path": "/elsewhere/Cargo.toml"})]
        for name in made:
            target = {"crate_types": ["cdylib"]}
            lines.append(json.dumps({**artifact, "target": target, "filenames": [name, f"{name}.d"]}))
        lines.append(json.dumps({**artifact, "target": {"crate_types": ["bin"]}, "filenames": ["x.wasm"]}))
        (self.bin / "printed").write_text("\n".join(lines) + "\n")
        printing = f'while IFS= read -r line; do printf "%s\\n" "$line"; done < {self.bin}/printed'
        self.put("cargo", f'printf "%s\\n" "$@" > {self.bin}/arguments\n{printing}\necho "{says}" >&2\nexit {code}')


@pytest.fixture
def tools(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolchain:
    """A Rust project, and nothing on the PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    for name in ("RUSTC", "CARGO_UNSTABLE_BUILD_STD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CARGO_HOME", str(tmp_path / "cargo"))
    assert run("init", "--lang", "rust").code == 0
    return Toolchain(directory, project)


def refusal(*arguments: str) -> str:
    """Run what must be refused; return what it says, without `Error: `."""
    code, _, err = run(*arguments)
    assert code == 1, err
    assert err.startswith("Error: ")
    return err.removeprefix("Error: ")


# --------------------------------------------------------------------------------------------------- init
def test_an_empty_directory_becomes_a_rust_project(project: Path, place: Place) -> None:
    (project / ".git").mkdir()
    code, out, err = run("init", "--lang=rust")
    assert (code, err) == (0, "")
    assert out == (
        "Created Cargo.toml\nCreated src/lib.rs\nCreated .gitignore\n\nNext steps:\n"
        "  python -m stdb serve    # in another terminal, unless a server is running\n"
        "  python -m stdb publish my-chat-2\n"
        '  python -m stdb call my-chat-2 send_message "hello"\n'
        '  python -m stdb sql my-chat-2 "SELECT * FROM message"\n'
    )
    manifest = (project / "Cargo.toml").read_text()
    assert '[package]\nname = "my_chat-2"\n' in manifest
    assert f'spacetimedb = "={templates.CRATE_VERSION}"\n' in manifest
    assert (project / ".gitignore").read_text() == "/target/\n"
    assert "{{" not in (project / "src/lib.rs").read_text()


@pytest.mark.parametrize("arguments", [("sub/new-one",), ("new-one", "--project-path", "sub/new-one", "--local")])
def test_a_directory_that_is_not_there_is_made(project: Path, arguments: tuple[str, ...]) -> None:
    code, out, _ = run("init", "-l", "py", "--non-interactive", *arguments)
    assert code == 0
    assert out.startswith("Created sub/new-one/__init__.py\n")
    assert "  cd sub/new-one\n" in out
    assert "python -m stdb publish new-one\n" in out


def test_a_python_project_is_published_as_it_stands(project: Path, server: Server) -> None:
    assert run("init", "--lang=python").code == 0
    assert run("build") == (0, "Build finished successfully.\n", "")
    code, out, err = run("publish", "my-chat", "-s", server.http)
    assert (code, err) == (0, "")
    assert "Created new database with name: my-chat, identity: c200" in out
    assert run("call", "my-chat", "send_message", "hello", "-s", server.http) == (0, "", "")
    assert '| "hello" ' in run("sql", "my-chat", "SELECT * FROM message", "-s", server.http).out
    assert "a message must not be empty" in refusal("call", "my-chat", "send_message", " ", "-s", server.http)
    assert "the room is open" in run("logs", "my-chat", "-s", server.http).out


def test_what_is_not_empty_is_left_alone(project: Path) -> None:
    for name in "abcd":
        (project / name).touch()
    assert refusal("init", "--lang", "rust") == (
        f"{project} is not empty: it holds a, b, c and 1 more. Nothing was written.\n\n"
        "Choose an empty directory or a new one: `python -m stdb init --lang LANG PATH` makes PATH.\n"
    )
    assert refusal("init", "--lang", "rust", "a").startswith("a is a file.")
    assert refusal("init", "--lang", "rust", "a/b").startswith("cannot write into a/b: Not a directory.")
    assert sorted(each.name for each in project.iterdir()) == list("abcd")


def test_languages_without_a_template_are_told_how_they_are_published() -> None:
    code, _, err = run("init", "--lang", "csharp")
    assert code == 2
    assert "csharp is none of rust, python; projects of other languages are begun" in err
    assert "published with --bin-path FILE" in err


@pytest.mark.parametrize(
    ("name", "crate", "database"),
    [
        ("chat", "chat", "chat"),
        ("My Chat", "my-chat", "my-chat"),
        ("spacetimedb", "spacetimedb-module", "spacetimedb"),
        ("enum", "enum-module", "enum"),
        ("2048", "2048-module", "2048"),
        ("снег", "my-module", "my-module"),
        ("a_b", "a_b", "a-b"),
    ],
)
def test_names_of_directories_become_names_that_are_allowed(name: str, crate: str, database: str) -> None:
    assert templates.crate_name(name) == crate
    assert templates.database_name(name) == database


# --------------------------------------------------------------------------------------------------- building
def test_cargo_builds_and_what_it_made_is_published(tools: Toolchain, server: Server) -> None:
    tools.rustc(has_target=True)
    (tools.bin / "chat.wasm").write_bytes(wat(module_text()))
    tools.cargo(str(tools.bin / "chat.wasm"))
    code, out, err = run("publish", "-s", server.http)
    assert (code, err) == (0, "")
    assert re.search(r"^Created new database with identity: c200[0-9a-f]{60}$", out, re.MULTILINE)
    building = ["build", "--target", "wasm32-unknown-unknown", "--message-format=json-render-diagnostics"]
    assert tools.arguments == [*building, "--release"]
    run("publish", "-s", UNBUILT, "--build-options", "--debug --features 'a,b'")
    assert tools.arguments == [*building, "--features", "a,b"]
    assert run("build", "-d").out == "Build finished successfully.\n"
    assert tools.arguments == building
    assert run("publish", "-s", UNBUILT, "--build-options", "--nosuch").code == 2
    assert refusal("build", "-p", "/nosuch").startswith("cannot read the module /nosuch: No such file or directory")


def test_the_usual_directory_of_a_project_is_found(tools: Toolchain) -> None:
    """The official command line's projects have their module in `spacetimedb`, clients beside it."""
    tools.rustc(has_target=True)
    inner = tools.project / "spacetimedb"
    inner.mkdir()
    assert refusal("build").startswith("Could not detect the language of the module.")
    (tools.project / "Cargo.toml").rename(inner / "Cargo.toml")
    tools._replace(project=inner).cargo("nosuch.wasm")
    assert refusal("build").startswith("cannot read the module nosuch.wasm")


def test_without_cargo_the_command_that_installs_it_is_told(tools: Toolchain) -> None:
    assert refusal("publish", "-s", UNBUILT) == (
        "cargo is not on the PATH: install Rust with `curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | "
        "sh -s -- --target wasm32-unknown-unknown`, and open a new terminal.\n"
    )


def test_without_the_target_the_command_that_installs_it_is_told(tools: Toolchain) -> None:
    tools.rustc(has_target=False)
    tools.cargo("never.wasm")
    tools.put("rustup", "exit 1")
    missing = "Rust cannot compile to WebAssembly: its target wasm32-unknown-unknown is not installed"
    assert refusal("build") == f"{missing}; `rustup target add wasm32-unknown-unknown` installs it.\n"
    (tools.bin / "rustup").unlink()
    assert refusal("build").startswith(
        f"{missing}, and this Rust is not rustup's; `apt-get install libstd-rust-dev-wasm32` installs it on Debian"
    )
    assert not (tools.bin / "arguments").exists()


@pytest.mark.parametrize("said", ["environment", "project", "above", "home"])
def test_who_compiles_the_standard_library_too_needs_no_target(
    tools: Toolchain, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.rustc(has_target=False)
    tools.cargo("made.wasm")
    if said == "environment":
        monkeypatch.setenv("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort")
    else:
        places = {"project": tools.project / ".cargo", "above": tools.project.parent / ".cargo"}
        settings = places.get(said, Path(os.environ["CARGO_HOME"]))
        settings.mkdir()
        (settings / "config.toml").write_text('[unstable]\nbuild-std = ["std", "panic_abort"]\n')
    assert refusal("build").startswith("cannot read the module made.wasm")


def test_a_compiler_that_cannot_be_asked_is_cargos_business(tools: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTC", "/nosuch/rustc")
    tools.cargo("made.wasm")
    assert refusal("build").startswith("cannot read the module made.wasm")


def test_what_cargo_says_of_a_mistake_is_shown(tools: Toolchain, capfd: pytest.CaptureFixture[str]) -> None:
    tools.rustc(has_target=True)
    tools.cargo(code=101, says="error[E0425]: cannot find value")
    code, out, err = run("publish", "-s", UNBUILT)
    assert (code, out) == (1, "")
    assert err == (
        f"Error: cargo did not build {tools.project}; what it printed says why.\n\nCaused by:\n"
        "    `cargo build --target wasm32-unknown-unknown --message-format=json-render-diagnostics --release` ended "
        "with exit code 101\n"
    )
    assert "error[E0425]: cannot find value\n" in capfd.readouterr().err


def test_a_crate_that_is_no_module_is_told_what_it_lacks(tools: Toolchain) -> None:
    tools.rustc(has_target=True)
    tools.cargo()
    assert 'below [lib] crate-type = ["cdylib"]' in refusal("build")
    tools.cargo("a.wasm", "b.wasm")
    assert refusal("build") == "cargo made several modules: a.wasm, b.wasm. Publish one with --bin-path FILE.\n"
    tools.put("cargo", "")
    (tools.bin / "cargo").write_bytes(b"\x7fELF")
    assert refusal("build").startswith(f"cannot run {tools.bin}/cargo: ")


# --------------------------------------------------------------------------------------------------- what else there is
def test_a_ready_binary_is_published_without_a_build(tools: Toolchain, server: Server) -> None:
    (tools.bin / "ready.wasm").write_bytes(wat(module_text()))
    code, out, err = run("publish", "ready", "-b", str(tools.bin / "ready.wasm"), "-s", server.http)
    assert (code, err) == (0, "")
    assert out.startswith(
        f"(WASM) Skipping build. Instead we are publishing {tools.bin}/ready.wasm\nUploading to {server.http}"
    )
    child = run("publish", "ready/child", "-b", str(tools.bin / "ready.wasm"), "-s", server.http)
    assert re.sub("c200[0-9a-f]{60}", "<id>", child.out).endswith(
        re.sub("c200[0-9a-f]{60}", "<id>", RECORDED[90]["stdout"].partition("Checking")[2])
    )
    orphan = ("publish", "orphan", "--parent", "nosuch", "-b", str(tools.bin / "ready.wasm"), "-s", server.http)
    assert refusal(*orphan).startswith("`nosuch` not found\n\nCaused by:\n    HTTP status client error (404 Not Found)")
    assert refusal(*orphan[:2], "--org", "nosuch", *orphan[4:]).startswith("`nosuch` not found\n")
    assert refusal("publish", "ready/Bad_Name", "-b", "x").startswith("invalid characters in database name\n")
    assert refusal("publish", "a/b/c", "-b", "x").startswith("invalid characters in database name\n")


def test_javascript_is_refused_with_what_runs_instead(tools: Toolchain) -> None:
    assert refusal("publish", "x", "-j", "bundle.js", "-s", UNBUILT) == (
        "bundle.js cannot be published: JavaScript modules do not run here.\n\n"
        "Modules are WebAssembly (--bin-path FILE), Rust projects or Python (--module-path PATH).\n"
    )


@pytest.mark.parametrize(
    ("mark", "language"), [("Chat.csproj", "C#"), ("package.json", "JavaScript"), ("CMakeLists.txt", "C++")]
)
def test_projects_of_other_languages_are_told_to_build_by_themselves(project: Path, mark: str, language: str) -> None:
    (project / mark).touch()
    assert refusal("publish", "-s", UNBUILT) == (
        f"{project} is a {language} project. stdb builds Rust and Python modules.\n\n"
        "A module that other tools compiled to WebAssembly is published with --bin-path FILE.\n"
    )


def test_a_directory_without_a_module_is_told_where_it_may_be(project: Path) -> None:
    official = RECORDED[87]["stderr"].removeprefix("Error: ")
    assert refusal("publish", "cli-x", "-s", UNBUILT) == (
        f"{official}\n{project} holds neither Cargo.toml (Rust) nor __init__.py (Python).\n"
        "Name the module with --module-path PATH or --bin-path FILE, or begin one in an empty directory: "
        "`python -m stdb init --lang rust` (or python).\n"
    )
    (project / "chat.py").touch()
    assert refusal("build").endswith("If the module is chat.py, name it: --module-path chat.py\n")


def test_building_a_python_module_finds_its_mistakes(project: Path) -> None:
    (project / "bad.py").write_text("from stdb import *\n\n@table\nclass A:\n    x: complex\n")
    assert refusal("build", "-p", "bad.py").startswith("bad.py:5: A.x: complex is no column type")


def test_a_server_starts_with_a_template(tmp_path: Path) -> None:
    """What `serve --publish` takes is what `publish` takes."""
    with own_place(tmp_path):
        assert run("init", "--lang", "python", str(tmp_path / "chat")).code == 0
        assert load_archive(read_program(tmp_path / "chat").body).definition.table("message") is not None
        (tmp_path / "empty").mkdir()
        assert refusal("serve", "--publish", str(tmp_path / "empty")).startswith("Could not detect the language")
