"""From an empty directory to a running Rust module, with the real cargo and the official crate."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_harness import own_place, run
from tests.interop.module_cargo import CACHE, toolchain
from tests.interop.npm import alone
from tests.interop.processes import serve

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, and a toolchain that makes WebAssembly; what crates compile to is kept between runs."""
    path, settings = toolchain()
    homes = {"HOME": os.environ["HOME"], "PATH": path, "CARGO_BUILD_JOBS": "2"}
    directory = tmp_path / "first-chat"
    directory.mkdir()
    # what is patched within is undone within: else the next tests of this process would live in this one's home
    with own_place(tmp_path), alone(CACHE / "first-chat"), pytest.MonkeyPatch.context() as patch:
        for name, value in {**homes, **settings, "CARGO_TARGET_DIR": str(CACHE / "target")}.items():
            patch.setenv(name, value)
        patch.chdir(directory)
        yield directory


def test_the_quick_start_works_as_it_is_told(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("init", "--lang=rust").code == 0
    with serve() as server:
        code, out, err = run("publish", "-s", server.http)
        assert (code, err) == (0, ""), capfd.readouterr().err
        assert "Compiling first-chat" in capfd.readouterr().err
        created = re.search(r"^Created new database with identity: (c200[0-9a-f]{60})$", out, re.MULTILINE)
        assert created is not None
        database = created[1]
        assert run("call", database, "send_message", "hello", "-s", server.http) == (0, "", "")
        assert '| "hello" ' in run("sql", database, "SELECT * FROM message", "-s", server.http).out
        assert "the room is open" in run("logs", database, "-s", server.http).out
        refused = run("call", database, "send_message", "  ", "-s", server.http)
        assert refused.err.startswith("Error: Response text: a message must not be empty\n")
        again = run("publish", database, "-s", server.http)
        assert again.out.endswith(f"Updated database with identity: {database}\n")


def test_a_mistake_in_the_source_is_shown_as_cargo_says_it(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("init", "--lang=rust").code == 0
    source = project / "src/lib.rs"
    source.write_text(source.read_text().replace("text.trim()", "txt.trim()"))
    code, out, err = run("build")
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: cargo did not build {project}; what it printed says why.\n")
    assert "cannot find value `txt` in this scope" in capfd.readouterr().err
