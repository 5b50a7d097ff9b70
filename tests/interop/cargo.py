"""Programs around the Rust SDKs (`rust/`), built by cargo into a cache directory of the project."""

import os
import subprocess
from pathlib import Path

from tests.interop.npm import ROOT, require

__all__ = ["build"]

SOURCES = Path(__file__).parent / "rust"
CACHE = Path(os.environ.get("STDB_TEST_CACHE", ROOT / ".cache")) / "cargo"
BUILD_SECONDS_MAX = 900


def build(package: str) -> Path:
    """Return the program of a package of `rust/`, built if it changed; cargo itself keeps other builds waiting."""
    cargo = require("cargo", "Rust 1.93 or later, and OpenSSL's headers with pkg-config")
    command = [cargo, "build", "--locked", "--jobs", "2", "--package", package]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(CACHE)}
    done = subprocess.run(
        command, cwd=SOURCES, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False
    )
    assert done.returncode == 0, f"cargo build of {package} failed:\n{done.stderr}"
    return CACHE / "debug" / package
