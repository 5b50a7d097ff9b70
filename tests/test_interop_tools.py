"""What the tests with real clients need may be missing on a user's machine, never in CI."""

import pytest

from tests.interop.npm import require


def test_a_missing_program_skips_for_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program is not installed: .* need a tool"):
        require("no-such-program", "a tool")


def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require("no-such-program", "a tool")
