"""Modules in Rust (`rust_modules/`), built against the official crate into a cache directory of the project.

The target is compiled with whatever Rust there is: with an installed `wasm32-unknown-unknown`, or with a compiler that
has the sources of its standard library (`DEBIAN_PACKAGES`).
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.interop.npm import TEST_CACHE, alone, missing

__all__ = ["CACHE", "build_module", "toolchain"]

SOURCES = Path(__file__).parent / "rust_modules"
CACHE = TEST_CACHE / "wasm"
BUILD_SECONDS_MAX = 1_800
TARGET = "wasm32-unknown-unknown"
DEBIAN_PACKAGES = ("rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm", "lld-22")
_BUILD = ("cargo", "build", "--release", "--jobs", "2", "--target", TARGET, "--ignore-rust-version")
_WITH_STD = {"RUSTC_BOOTSTRAP": "1", "CARGO_UNSTABLE_BUILD_STD": "std,panic_abort"}


def build_module(name: str, version: str, *features: str) -> Path:
    """Return a module compiled against a version of the crate; built again only when something changed."""
    workspace = CACHE / f"{name}-{version}"
    copy = workspace / name
    path, settings = toolchain()
    with alone(CACHE / "target"):  # cargo names a module alike whatever its version and features
        shutil.copytree(SOURCES / name, copy, dirs_exist_ok=True)
        # in a workspace, as the recorded modules were: the paths of sources in logs begin with the name
        (workspace / "Cargo.toml").write_text(f'[workspace]\nmembers = ["{name}"]\nresolver = "2"\n')
        manifest = copy / "Cargo.toml"
        manifest.write_text(re.sub(r'"=[0-9.]+"', f'"={version}"', manifest.read_text()))
        done = subprocess.run(
            [*_BUILD, *(("--features", ",".join(features)) if features else ())],
            cwd=workspace,
            env={**os.environ, **settings, "PATH": path, "CARGO_TARGET_DIR": str(CACHE / "target")},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, f"{name} against spacetimedb {version} does not compile:\n{done.stderr[-4000:]}"
        built = workspace / f"{'_'.join((name, *features))}.wasm"
        shutil.copyfile(CACHE / "target" / TARGET / "release" / f"{name}.wasm", built)
    return built


def toolchain() -> tuple[str, dict[str, str]]:
    """Return a PATH and settings with which cargo makes WebAssembly; a missing one skips for a user, fails in CI."""
    for path, settings in ((os.environ["PATH"], {}), ("/usr/bin:/bin", _WITH_STD)):
        rustc = shutil.which("rustc", path=path)
        if rustc is None or shutil.which("cargo", path=path) is None:
            continue
        target = ["--print", "target-libdir", "--target", TARGET] if not settings else ["--print", "sysroot"]
        printed = subprocess.run([rustc, *target], capture_output=True, text=True, check=False).stdout.strip()
        if printed and (Path(printed) / ("lib/rustlib/src/rust/library/std" if settings else "")).exists():
            return path, settings
    raise missing(f"no Rust for {TARGET}: `rustup target add {TARGET}`, or Debian's {', '.join(DEBIAN_PACKAGES)}")
