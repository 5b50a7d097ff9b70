"""Type checkers, without a plugin, accept what is right and report what is wrong (spec 08)."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent
TYPING = ROOT / "tests" / "typing"
SETTINGS = {"typeCheckingMode": "strict", "reportUnusedExpression": False, "extraPaths": [str(ROOT)]}


def expected(checker: str) -> list[int]:
    lines = (TYPING / "mistakes.py").read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if checker in line.partition("  # ")[2].split()]


def mypy(*files: Path) -> list[tuple[str, int, str]]:
    """Return file, line and text of every error."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(
        [*command, "--config-file", "", "--python-version", "3.11", *map(str, files)],
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT), "PATH": "", "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "typing")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(.*?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    names = {file.name for file in files}
    return [(Path(name).name, int(line), text) for name, line, text in found if Path(name).name in names]


def absent(message: str) -> NoReturn:
    """Skip for a user, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def pyright(tmp_path: Path, *files: Path) -> list[tuple[str, int, str]]:
    """Return file, line and text of every error."""
    command = shutil.which("pyright", path=str(Path(sys.executable).parent)) or shutil.which("pyright")
    if command is None:
        absent("pyright is not installed")
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(json.dumps(SETTINGS))
    for file in files:
        shutil.copy(file, tmp_path / f"{file.parent.name}_{file.name}")
    done = subprocess.run(
        [command, "--outputjson", "-p", str(settings), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        document = json.loads(done.stdout)
    except ValueError:
        absent(f"pyright does not run here: {done.stdout[-200:]}{done.stderr[-200:]}")
    assert document["summary"]["filesAnalyzed"] == len(files), document["summary"]
    return [
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in document["generalDiagnostics"]
        if each["severity"] == "error"
    ]


RIGHT = (TYPING / "chat.py", TYPING / "features.py", ROOT / "examples" / "quickstart_chat" / "__init__.py")


def test_mypy_accepts_the_example_and_every_feature() -> None:
    assert mypy(*RIGHT) == []


@pytest.mark.slow
def test_pyright_accepts_the_example_and_every_feature(tmp_path: Path) -> None:
    assert pyright(tmp_path, *RIGHT) == []


def test_mypy_reports_exactly_the_mistakes() -> None:
    found = mypy(TYPING / "mistakes.py")
    assert sorted({line for _, line, _ in found}) == expected("mypy"), found


@pytest.mark.slow
def test_pyright_reports_exactly_the_mistakes(tmp_path: Path) -> None:
    found = pyright(tmp_path, TYPING / "mistakes.py")
    assert sorted({line for _, line, _ in found}) == expected("pyright"), found


def test_the_files_for_type_checkers_run() -> None:
    from tests.python_module_harness import load

    for path in RIGHT:
        load({path.name.replace("__init__", "chat"): path.read_text()})
