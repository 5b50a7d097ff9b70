"""Rust projects, compiled to WebAssembly by the user's own cargo.

Responsible for: what must be installed, cargo's options, finding the file that cargo made.
Not responsible for: which directory is a Rust project (`build`), what a new one holds (`templates`).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stdb.cli.errors import CliError

__all__ = ["TARGET", "build_crate"]

TARGET = "wasm32-unknown-unknown"
_RUSTUP = "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- --target " + TARGET


def build_crate(directory: Path, *, debug: bool = False, features: str | None = None) -> Path:
    """Return the WebAssembly file of the crate in a directory, built if something changed; cargo's words go to stderr.

    Raises:
        CliError: Something is not installed, the crate does not compile, or it is not one that makes a module.
    """
    cargo = shutil.which("cargo")
    if cargo is None:
        raise CliError(f"cargo is not on the PATH: install Rust with `{_RUSTUP}`, and open a new terminal.")
    _check_target(directory)
    command = [cargo, "build", "--target", TARGET, "--message-format=json-render-diagnostics"]
    command += [] if debug else ["--release"]
    command += ["--features", features] if features else []
    sys.stdout.flush()
    try:
        done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, check=False)
    except OSError as error:
        raise CliError(f"cannot run {cargo}: {error.strerror}") from error
    if done.returncode != 0:
        raise CliError(
            f"cargo did not build {directory.absolute()}; what it printed says why.",
            f"`{' '.join(['cargo', *command[1:]])}` ended with exit code {done.returncode}",
        )
    return _one(list(_made(done.stdout, directory)), directory)


# --------------------------------------------------------------------------------------------------- what is installed
def _check_target(directory: Path) -> None:
    """Refuse a compiler that has no WebAssembly, before cargo fetches and compiles for nothing."""
    rustc = os.environ.get("RUSTC") or shutil.which("rustc")
    if rustc is None or _has_target(rustc, directory) or _builds_std(directory):
        return
    missing = f"Rust cannot compile to WebAssembly: its target {TARGET} is not installed"
    if shutil.which("rustup"):
        raise CliError(f"{missing}; `rustup target add {TARGET}` installs it.")
    raise CliError(
        f"{missing}, and this Rust is not rustup's; `apt-get install libstd-rust-dev-wasm32` installs it on Debian and "
        f"Ubuntu, and `{_RUSTUP}` a Rust that has it everywhere."
    )


def _has_target(rustc: str, directory: Path) -> bool:
    command = [rustc, "--print", "target-libdir", "--target", TARGET]
    try:  # in the project's directory, as that may name a toolchain
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except OSError:
        return True  # cargo will say what is wrong with it
    return Path(done.stdout.strip() or os.devnull).is_dir()


def _builds_std(directory: Path) -> bool:
    """Tell whether cargo is told to compile the standard library itself: then it needs no installed target."""
    if os.environ.get("CARGO_UNSTABLE_BUILD_STD"):
        return True
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    places = [each / ".cargo" for each in (directory.resolve(), *directory.resolve().parents)]
    return any(_names_build_std(place / "config.toml") for place in (*places, home))


def _names_build_std(path: Path) -> bool:
    try:
        return "build-std" in path.read_text("utf-8", "replace")
    except OSError:
        return False


# --------------------------------------------------------------------------------------------------- what cargo made
def _made(output: bytes, directory: Path) -> Iterator[Path]:
    """Yield the modules of the crate in `directory` that cargo says it made."""
    manifest = (directory / "Cargo.toml").resolve()
    for line in output.splitlines():
        message = _message(line)
        if message.get("reason") != "compiler-artifact" or Path(message.get("manifest_path", "")) != manifest:
            continue
        if "cdylib" in message["target"]["crate_types"]:
            yield from (Path(each) for each in message["filenames"] if each.endswith(".wasm"))


def _message(line: bytes) -> dict[str, Any]:
    """Return what a line of cargo's says; build scripts and wrappers of the compiler may print others."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _one(made: list[Path], directory: Path) -> Path:
    if len(made) == 1:
        return made[0]
    if made:
        raise CliError(f"cargo made several modules: {', '.join(map(str, made))}. Publish one with --bin-path FILE.")
    raise CliError(
        f"cargo built {directory.absolute()}, but made no module of it.",
        hint='Cargo.toml of a module has a [package], not only a [workspace], and below [lib] crate-type = ["cdylib"].',
    )
