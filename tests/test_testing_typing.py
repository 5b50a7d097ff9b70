"""Type checkers know what a module's tests write: functions, arguments, rows."""

import pytest

from tests.test_python_module_typing import ROOT, TYPING, mypy

pytestmark = pytest.mark.slow  # mypy in processes of its own


def test_mypy_accepts_tests_of_modules() -> None:
    assert mypy(TYPING / "testing.py", ROOT / "tests" / "testing_market.py") == []


def test_mypy_reports_mistakes_in_tests_of_modules() -> None:
    path = TYPING / "testing_mistakes.py"
    lines = path.read_text().splitlines()
    wanted = [number for number, line in enumerate(lines, 1) if line.endswith("# mypy")]
    assert sorted({line for _, line, _ in mypy(path)}) == wanted
