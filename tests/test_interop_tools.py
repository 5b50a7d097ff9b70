"""What the tests with real clients need may be missing on a user's machine, never in CI."""

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
