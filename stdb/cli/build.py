"""Building: from a project's directory to the program that is published, and the command `build`.

Responsible for: which directory is meant, its language, options of a build.
Not responsible for: compiling Rust (`cargo`), packing Python (`pack`).
"""

import argparse
import shlex
from pathlib import Path

from stdb.cli.cargo import build_crate
from stdb.cli.errors import CliError
from stdb.cli.pack import Program, read_program
from stdb.cli.parser_modules import build_options_parser
from stdb.errors import SchemaError

__all__ = ["build", "build_program", "module_path"]

USUAL_DIRECTORY = Path("spacetimedb")
"""Where the official command line's projects have their module."""
_MARKS = (
    ("Python", "__init__.py"),
    ("Rust", "Cargo.toml"),
    ("C#", "*.csproj"),
    ("JavaScript", "package.json"),
    ("C++", "CMakeLists.txt"),
)
"""Languages, each by a file that is in such a project; the first one counts."""


def build(options: argparse.Namespace) -> None:
    """Build the module of a project, and check a Python one."""
    path = module_path(options.module_path)
    program = build_program(path, options)
    if program.host_type == "Python":
        _check_python(program)
    print("Build finished successfully.")


def module_path(given: str | None) -> Path:
    """Return where the module is: the path that was given, else `spacetimedb` if there is one, else this directory."""
    if given is not None:
        return Path(given)
    return USUAL_DIRECTORY if USUAL_DIRECTORY.is_dir() else Path()


def build_program(path: Path, options: argparse.Namespace | str | None = None) -> Program:
    """Return the program at `path`: a project's directory, a `.py` file, or a ready binary.

    `options` are what the command `build` was given, or the text of `publish --build-options`.
    """
    if not path.is_dir():
        return read_program(path)
    language = _language(path)
    if language == "Python":
        return read_program(path)
    if language != "Rust":
        raise CliError(
            f"{path.absolute()} is a {language} project. stdb builds Rust and Python modules.",
            hint="A module that other tools compiled to WebAssembly is published with --bin-path FILE.",
        )
    chosen = _parsed(options) if options is None or isinstance(options, str) else options
    return read_program(build_crate(path, debug=chosen.debug, features=chosen.features))


def _parsed(text: str | None) -> argparse.Namespace:
    try:
        words = shlex.split(text or "")
    except ValueError as error:
        raise CliError(f"--build-options {text}: {error}", exit_code=2) from error
    return build_options_parser().parse_args(words)


def _language(directory: Path) -> str:
    for language, mark in _MARKS:
        if any(directory.glob(mark)):
            return language
    raise CliError(
        "Could not detect the language of the module. Are you in a SpacetimeDB project directory?",
        hint=f"{directory.absolute()} holds neither Cargo.toml (Rust) nor __init__.py (Python).\n{_advice(directory)}",
    )


def _advice(directory: Path) -> str:
    if sources := sorted(directory.glob("*.py")):
        return f"If the module is {sources[0].name}, name it: --module-path {sources[0]}"
    return (
        "Name the module with --module-path PATH or --bin-path FILE, or begin one in an empty directory: "
        "`python -m stdb init --lang rust` (or python)."
    )


def _check_python(program: Program) -> None:
    from stdb.modules.python.loader import load_archive

    try:
        load_archive(program.body)
    except SchemaError as error:
        raise CliError(str(error)) from error
