"""Modules in Rust (`rust_modules/`), built against the official crate into a cache directory of the project.

The target is compiled with whatever Rust there is: with an installed `wasm32-unknown-unknown`, or with a compiler that
has the sources of its standard library (`DEBIAN_PACKAGES`). Modules of one version of the crate are one workspace, and
all workspaces share a target directory: the standard library is compiled once, a version of the crate once. Cargo is
asked only for what was not built before from these sources by this compiler.
"""

import json
import os
import re
import shutil
import subprocess
from functools import cache
from hashlib import sha256
from pathlib import Path

from tests.interop.npm import TEST_CACHE, alone, missing

__all__ = ["CACHE", "build_module", "sources", "toolchain"]

SOURCES = Path(__file__).parent / "rust_modules"
CACHE = TEST_CACHE / "wasm"
BUILD_SECONDS_MAX = 1_800
TARGET = "wasm32-unknown-unknown"
DEBIAN_PACKAGES = ("rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm", "lld-22")
_BUILD = ("cargo", "build", "--release", "--jobs", "2", "--target", TARGET, "--ignore-rust-version")
_WITH_STD = {"RUSTC_BOOTSTRAP": "1", "CARGO_UNSTABLE_BUILD_STD": "std,panic_abort"}
_FROM_1_TO_2 = (
    ("(name = ", "(accessor = "),
    ("ctx.sender", "ctx.sender()"),
    ("ctx.connection_id", "ctx.connection_id()"),
    ("ctx.identity()", "ctx.database_identity()"),
    ("-> Query<", "-> impl Query<"),
)
"""What the change from crate 1.x to 2.x asks of a module that does nothing unusual."""


def sources(name: str, version: str) -> dict[str, str]:
    """Return the files of a module by their paths, pinned to a version of the crate.

    The 2.x garden has the one of 1.x as a submodule, changed as 2.x asks.
    """
    root = SOURCES / name
    files = {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}
    files["Cargo.toml"] = re.sub(r'"=[0-9.]+"', f'"={version}"', files["Cargo.toml"])
    if name == "garden_2":
        for mine, of_1 in (("src/garden.rs", "src/lib.rs"), ("src/garden/later.rs", "src/later.rs")):
            files[mine] = (SOURCES / "garden_1" / of_1).read_text()
            for before, after in _FROM_1_TO_2:
                files[mine] = files[mine].replace(before, after)
    return files


@cache
def build_module(name: str, version: str, *features: str) -> Path:
    """Return a module compiled against a version of the crate."""
    path, settings = toolchain()
    files = sources(name, version)
    digest = sha256(repr((files, _compiler(path), _BUILD, settings)).encode()).hexdigest()[:16]
    label = "-".join((name, version, *features))
    built = CACHE / "built" / f"{label}-{digest}.wasm"
    with alone(CACHE / "target"):  # cargo names a module alike whatever its version and features
        if not built.exists():
            _compile(_workspace(version, name), name, features, path, settings)
            built.parent.mkdir(exist_ok=True)
            part = built.with_suffix(".part")
            shutil.copyfile(CACHE / "target" / TARGET / "release" / f"{name}.wasm", part)
            for old in built.parent.glob(f"{label}-{'?' * len(digest)}.wasm"):
                old.unlink()
            part.replace(built)
    return built


def _workspace(version: str, name: str) -> Path:
    """Return the workspace of a version, with the modules made for it and this one.

    What is a member of a workspace has the paths of its sources in logs begin with its name. All of them from the
    beginning: so cargo looks for versions of their dependencies once.
    """
    workspace = CACHE / f"crate-{version}"
    made = {path.parent.name for path in SOURCES.glob("*/Cargo.toml") if f'"={version}"' in path.read_text()}
    members = sorted(made | {name})
    for member in members:
        for file, text in sources(member, version).items():
            copy = workspace / member / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not (copy.exists() and copy.read_text() == text):
                copy.write_text(text)
    listed = json.dumps(members)
    (workspace / "Cargo.toml").write_text(f'[workspace]\nmembers = {listed}\nresolver = "2"\n')
    return workspace


def _compile(workspace: Path, name: str, features: tuple[str, ...], path: str, settings: dict[str, str]) -> None:
    """Have cargo build a member of a workspace."""
    done = subprocess.run(
        [*_BUILD, "--package", name, *(("--features", ",".join(features)) if features else ())],
        cwd=workspace,
        env={**os.environ, **settings, "PATH": path, "CARGO_TARGET_DIR": str(CACHE / "target")},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{name} in {workspace.name} does not compile:\n{done.stderr[-4000:]}"


def _compiler(path: str) -> str:
    """Return which compiler that is."""
    rustc = shutil.which("rustc", path=path)
    return subprocess.run([str(rustc), "-vV"], capture_output=True, text=True, check=True).stdout


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
