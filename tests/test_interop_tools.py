"""What the tests with real clients need may be missing on a user's machine, never in CI."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop import module_cargo
from tests.interop.npm import ROOT, require


def test_a_missing_program_skips_for_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program is not installed: .* need a tool"):
        require("no-such-program", "a tool")


def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require("no-such-program", "a tool")


def test_rust_that_compiles_to_no_webassembly_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(module_cargo.shutil, "which", lambda _program, path: None)
    with pytest.raises(pytest.fail.Exception, match=r"no Rust for wasm32-unknown-unknown.*rustc-web"):
        module_cargo.toolchain()


def test_the_system_packages_of_ci_are_those_that_are_asked_for() -> None:
    assert " ".join(module_cargo.DEBIAN_PACKAGES) in (ROOT / ".ci/run").read_text()


def test_a_module_is_built_when_something_changed_and_not_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def cargo(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        asked.append(command)
        release = Path(options["env"]["CARGO_TARGET_DIR"]) / module_cargo.TARGET / "release"
        release.mkdir(parents=True, exist_ok=True)
        (release / "guild.wasm").write_text(f"program {len(asked)}")
        return subprocess.CompletedProcess(command, 0, "", "")

    shutil.copytree(module_cargo.SOURCES / "guild", tmp_path / "sources" / "guild")
    monkeypatch.setattr(module_cargo, "SOURCES", tmp_path / "sources")
    monkeypatch.setattr(module_cargo, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(module_cargo, "toolchain", lambda: ("/usr/bin", {}))
    monkeypatch.setattr(module_cargo, "_compiler", lambda _path: "rustc 1")
    monkeypatch.setattr(subprocess, "run", cargo)
    build = module_cargo.build_module.__wrapped__

    first = build("guild", "2.8.3")
    assert build("guild", "2.8.3") == first
    assert first.read_text() == "program 1"
    with_feature = build("guild", "2.8.3", "v2")
    assert asked[-1][-2:] == ["--features", "v2"]
    (tmp_path / "sources/guild/src/lib.rs").write_text("// changed")
    second = build("guild", "2.8.3")
    assert second.read_text() == "program 3"
    assert not first.exists()
    assert with_feature.exists()
    monkeypatch.setattr(module_cargo, "_compiler", lambda _path: "rustc 2")
    assert build("guild", "2.8.3").read_text() == "program 4"
    assert (tmp_path / "cache/crate-2.8.3/guild/src/lib.rs").read_text() == "// changed"


def test_the_garden_of_1_x_is_spelled_as_2_x_asks() -> None:
    garden = module_cargo.sources("garden_2", "2.14.0")
    assert '"=2.14.0"' in garden["Cargo.toml"]
    assert "#[table(accessor = plant, public, index(accessor = by_kind_height" in garden["src/garden.rs"]
    assert "(name = " not in garden["src/garden.rs"]
    assert "filter(ctx.sender()).collect()" in garden["src/garden/later.rs"]
