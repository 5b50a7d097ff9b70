"""The command `init`: a new project in an empty directory.

Responsible for: which directory, what is told.
Not responsible for: the files' texts (`templates`).
"""

import argparse
from pathlib import Path

from stdb.cli import templates
from stdb.cli.errors import CliError

__all__ = ["init"]

NO_CONTENT = frozenset((".git",))
"""What may be in a directory that counts as empty."""


def init(options: argparse.Namespace) -> None:
    """Fill an empty directory with a project that can be published."""
    directory = Path(options.project_path or options.project or ".")
    name = Path(options.project).name if options.project else directory.resolve().name
    try:
        _check_empty(directory)
        for path, text in templates.files(options.lang, name).items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as file:
                file.write(text)
            print(f"Created {target}")
    except OSError as error:
        raise CliError(
            f"cannot write into {directory}: {error.strerror or error}. Choose another directory."
        ) from error
    print("\nNext steps:")
    for step in _steps(directory, templates.database_name(name)):
        print(f"  {step}")


def _check_empty(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise CliError(f"{directory} is a file. Choose an empty directory or a new one: `init --lang LANG PATH`.")
    if found := sorted(entry.name for entry in directory.iterdir() if entry.name not in NO_CONTENT):
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise CliError(
            f"{directory.absolute()} is not empty: it holds {shown}. Nothing was written.",
            hint="Choose an empty directory or a new one: `python -m stdb init --lang LANG PATH` makes PATH.",
        )


def _steps(directory: Path, database: str) -> list[str]:
    steps = ["python -m stdb serve    # in another terminal, unless a server is running"]
    if directory.resolve() != Path.cwd():
        steps.insert(0, f"cd {directory}")
    steps.append(f"python -m stdb publish {database}")
    steps.append(f'python -m stdb call {database} send_message "hello"')
    steps.append(f'python -m stdb sql {database} "SELECT * FROM message"')
    return steps
