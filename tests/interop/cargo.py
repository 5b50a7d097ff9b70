"""Programs around the Rust SDKs (`rust/`), built by cargo into a cache directory of the project."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.interop.npm import TEST_CACHE, alone, require

__all__ = ["build", "build_with"]

SOURCES = Path(__file__).parent / "rust"
CACHE = TEST_CACHE / "cargo"
BUILD_SECONDS_MAX = 900


def build(package: str) -> Path:
    """Return the program of a package of `rust/`, built if it changed; cargo itself keeps other builds waiting."""
    _run(SOURCES, CACHE / "target", "--locked", "--package", package)
    return CACHE / "target" / "debug" / package


def build_with(package: str, version: str) -> Path:
    """Return the same program with another version of the SDK; the other crates' versions are then cargo's choice."""
    copy = CACHE / f"{package}-{version}"
    with alone(copy):
        keep = shutil.ignore_patterns("Cargo.lock") if (copy / "Cargo.lock").exists() else None
        shutil.copytree(SOURCES, copy, dirs_exist_ok=True, ignore=keep)
        manifest = copy / package / "Cargo.toml"
        manifest.write_text(re.sub(r'(spacetimedb-sdk = )".*"', rf'\1"={version}"', manifest.read_text()))
    _run(copy, copy / "target", "--package", package)
    return copy / "target" / "debug" / package


def _run(directory: Path, target: Path, *arguments: str) -> None:
    command = [require("cargo", "Rust 1.93 or later, and OpenSSL's headers with pkg-config"), "build", "--jobs", "2"]
    settings = {"CARGO_TARGET_DIR": str(target), "CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS": "fallback"}
    done = subprocess.run(
        [*command, *arguments],
        cwd=directory,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"cargo build {' '.join(arguments)} failed:\n{done.stderr}"
