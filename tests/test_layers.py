"""Imports follow the table of ARCHITECTURE.md, and ARCHITECTURE.md names every package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = [
    "errors",
    "sats",
    "schema",
    "datastore",
    "sql",
    "subscriptions",
    "modules",
    "storage",
    "actors",
    "net",
    "client",
    "codegen",
    "server",
    "cli",
    "testing",
]
CORE = HOUSE[: HOUSE.index("modules") + 1]
FORBIDDEN_IN_CORE = {
    "trio",
    "asyncio",
    "socket",
    "os",
    "pathlib",
    "time",
    "threading",
    "sqlite3",
    "subprocess",
    "ctypes",
    "wasmtime",
}
CLIENT_MAY_IMPORT = {"errors", "sats", "client"}
FILES = sorted((ROOT / "stdb").rglob("*.py"))


def package_of(path: Path) -> str:
    """Return the name in HOUSE that a file belongs to; "" for the author's face and `__main__`."""
    parts = path.relative_to(ROOT / "stdb").with_suffix("").parts
    return "" if parts in (("__init__",), ("__main__",)) else parts[0]


def imports(path: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Yield (module, line, names) of every import in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute in stdb"
            yield node.module or "", node.lineno, [alias.name for alias in node.names]


def test_every_package_is_in_the_house() -> None:
    assert {package_of(path) for path in FILES} - {""} <= set(HOUSE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_up_the_house(path: Path) -> None:
    package = package_of(path)
    if not package:
        return
    allowed = CLIENT_MAY_IMPORT if package == "client" else set(HOUSE[: HOUSE.index(package) + 1])
    for module, line, names in imports(path):
        if module.split(".")[0] != "stdb":
            continue
        targets = {module.split(".")[1]} if "." in module else set(names)
        known = targets & set(HOUSE)
        assert known <= allowed, f"{path.name}:{line}: {package} may not import {sorted(known - allowed)}"


@pytest.mark.parametrize("path", [path for path in FILES if package_of(path) in CORE], ids=lambda path: str(path.name))
def test_the_core_does_no_io(path: Path) -> None:
    for module, line, names in imports(path):
        top = module.split(".")[0]
        if package_of(path) == "modules" and "wasm" in path.parts and top in ("ctypes", "wasmtime"):
            continue
        assert top not in FORBIDDEN_IN_CORE, f"{path}:{line}: the core may not import {top}"
        if top == "random":
            assert names == ["Random"], f"{path}:{line}: the core may import only Random"


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    sections = {part.split("\n", 1)[0]: part for part in text.split("\n### ")}
    missing = []
    for path in FILES:
        package = package_of(path)
        if package and path.parent != ROOT / "stdb" and path.name != "__init__.py":
            name = str(path.relative_to(ROOT / "stdb" / package))
            if f"`{name}`" not in sections.get(f"stdb/{package}", ""):
                missing.append(f"{package}/{name}")
        elif package and path.parent == ROOT / "stdb" and f"`stdb/{path.name}`" not in text:
            missing.append(path.name)
    assert not missing, f"ARCHITECTURE.md does not name {missing}"
