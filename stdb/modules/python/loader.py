"""Loader: from a program's files to a PythonModule, or to everything that is wrong with them.

Responsible for: finding the program's own module and name, requirements, import, collecting mistakes with places.
Not responsible for: reading directories (the command line), archives (`archive`), definitions (`definition`).

Source: spec 08, "Publishing and loading".
"""

import importlib.metadata
import re
import tokenize
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

from stdb.errors import ReducerTimeout, SchemaError
from stdb.modules.python.archive import program_hash, unpack
from stdb.modules.python.blocking import time_facade, unwatch, watch
from stdb.modules.python.declarations import SOURCE_ROOT, Declarations, Finding, Place, collecting
from stdb.modules.python.definition import Program, build
from stdb.modules.python.importer import Version
from stdb.modules.python.module import PythonModule
from stdb.modules.python.output import Output, failure_text

__all__ = ["load", "load_archive", "program_name"]

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*([^;@]*)(;|@)?")
_SPECIFIER = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>)\s*([0-9][0-9.]*)(\.\*)?\s*\Z")


def load_archive(body: bytes) -> PythonModule:
    """Return the module of a program's zip.

    Raises:
        SchemaError: It is no archive, or what is in it cannot be published.
    """
    return load(unpack(body))


def load(files: Mapping[str, bytes], name: str | None = None) -> PythonModule:
    """Return the module of a program's files.

    Args:
        files: Bytes by `/`-separated path: `chat.py` alone, or `chat/__init__.py` and the rest. A package may also be
            given from inside (`__init__.py` and the rest).
        name: The program's own name, for a package given from inside; otherwise the files tell.

    Raises:
        SchemaError: Something is wrong; holds every mistake with file and line, and what to do.
    """
    name, files = program_name(files, name)
    digest = program_hash(files)
    sources, findings = _sources(files)
    findings += _requirement_findings(files)
    version = Version(sources, name, digest.hex())
    output = Output(version.package)
    version.builtins["print"] = output.print
    version.facades |= {"logging": lambda _: output.logging_facade(), "time": lambda real: time_facade(real, output)}
    watch(version.directory, output)
    try:
        program = _import(version, findings)
    except BaseException as error:
        unwatch(version.directory)
        version.unload()
        output.close()
        if issubclass(type(error), Exception):
            raise
        # annotations and defaults are the module's own code, too: no SystemExit of theirs ends the server
        raise SchemaError([str(_import_finding(error))]) from error
    return PythonModule(program, version, output, digest)


def program_name(files: Mapping[str, bytes], name: str | None = None) -> tuple[str, dict[str, bytes]]:
    """Return a program's own name and its files as an archive has them.

    Raises:
        SchemaError: The files are no single module and no package.
    """
    if "__init__.py" in files:
        own = name or "module"
        return _checked_name(own), {f"{own}/{path}": files[path] for path in sorted(files)}
    packages = [path.partition("/")[0] for path in files if path.count("/") == 1 and path.endswith("/__init__.py")]
    modules = [path.removesuffix(".py") for path in files if "/" not in path and path.endswith(".py")]
    candidates = packages + modules
    if name in candidates:
        candidates = [name]
    if len(candidates) != 1:
        found = f"found {', '.join(sorted(candidates))}" if candidates else "found none"
        raise SchemaError([f"a program is one module (name.py) or one package (name/__init__.py); {found}"])
    return _checked_name(candidates[0]), dict(sorted(files.items()))


def _checked_name(name: str) -> str:
    if not name.isidentifier():
        raise SchemaError(
            [f"{name!r} cannot be a Python module's name: use letters, digits and underscores; rename it"]
        )
    return name


def _sources(files: Mapping[str, bytes]) -> tuple[dict[str, str], list[Finding]]:
    """Return the text of every Python file, and what cannot be read."""
    sources: dict[str, str] = {}
    findings: list[Finding] = []
    for path in files:
        if path.endswith(".py") and all(part.isidentifier() for part in path.removesuffix(".py").split("/")):
            try:
                encoding, _ = tokenize.detect_encoding(BytesIO(files[path]).readline)
                sources[path] = files[path].decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
            except (SyntaxError, UnicodeDecodeError, LookupError) as error:
                findings.append(Finding(Place(path, 1), f"the file is no Python text: {error}"))
    return sources, findings


def _import(version: Version, findings: list[Finding]) -> Program:
    """Compile everything, import it, build its definition.

    Raises:
        SchemaError: With every mistake of all three.
    """
    findings += [_syntax_finding(error) for error in version.compile()]
    if findings:
        raise SchemaError([str(finding) for finding in findings])
    declarations = Declarations(version.package)
    with collecting(declarations):
        try:
            version.import_all()
        except BaseException as error:  # noqa: BLE001 - the module's own code, whatever it raises
            findings.append(_import_finding(error))
    return build(declarations, version.namespaces(), findings)


def _syntax_finding(error: SyntaxError) -> Finding:
    return Finding(Place(error.filename or "?", error.lineno or 1), f"{type(error).__name__}: {error.msg}")


def _import_finding(error: BaseException) -> Finding:
    """Return what stopped an import; the exception's own code may do as it likes."""
    try:
        return _place_import(error)
    except BaseException as inner:  # noqa: BLE001 - as `failure_text`
        return Finding(
            None, f"an exception that cannot be shown: {type(inner).__name__} (while the module was imported)"
        )


def _place_import(error: BaseException) -> Finding:
    """Return what stopped an import, at the innermost line of the program."""
    if isinstance(error, SyntaxError) and (error.filename or "").startswith(SOURCE_ROOT):
        return _syntax_finding(error)
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(SOURCE_ROOT)]
    place = Place(frames[-1].filename, frames[-1].lineno or 1) if frames else None
    text = failure_text(error)
    if not issubclass(type(error), ReducerTimeout):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    if isinstance(error, ModuleNotFoundError):
        text += "; install it where the server runs, or remove the import"
    return Finding(place, f"{text} (while the module was imported)")


# Requirements


def _requirement_findings(files: Mapping[str, bytes]) -> list[Finding]:
    """Return what `pyproject.toml` asks for and the server's environment does not have."""
    for path in (path for path in files if path.rpartition("/")[2] == "pyproject.toml" and path.count("/") < 2):
        try:
            document = tomllib.loads(files[path].decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            return [Finding(Place(path, 1), f"the file cannot be read: {error}")]
        return [Finding(Place(path, 1), text) for text in _unmet(document)]
    return []


def _unmet(document: dict[str, Any]) -> Iterator[str]:
    project = document.get("project", {})
    requirements = project.get("dependencies", []) if isinstance(project, dict) else []
    for requirement in requirements if isinstance(requirements, list) else []:
        match = _REQUIREMENT.match(requirement) if isinstance(requirement, str) else None
        if match is None:
            yield f"the requirement {requirement!r} cannot be read"
        elif match[3] is None:  # with a marker or an address, the import tells
            try:
                installed = importlib.metadata.version(match[1])
            except importlib.metadata.PackageNotFoundError:
                yield f"the requirement {requirement!r} is not installed where the server runs: install it there"
                continue
            if not all(_is_met(installed, each) for each in match[2].strip().strip("()").split(",") if each.strip()):
                yield f"the requirement {requirement!r} is not met: the server has version {installed}"


def _is_met(installed: str, specifier: str) -> bool:
    """Tell whether a version meets one specifier, by its release numbers; one that this does not read is met."""
    match = _SPECIFIER.match(specifier)
    release = re.match(r"[0-9]+(\.[0-9]+)*", installed)
    if match is None or release is None:
        return True
    sign, wanted_text, star = match.groups()
    wanted = tuple(map(int, wanted_text.strip(".").split(".")))
    have = tuple(map(int, release[0].split(".")))
    if sign == "~=":
        return have[: len(wanted) - 1] == wanted[:-1] and have >= wanted
    if star:
        return (have[: len(wanted)] == wanted) is (sign == "==")
    width = max(len(have), len(wanted))
    left, right = have + (0,) * (width - len(have)), wanted + (0,) * (width - len(wanted))
    return {
        **{"==": left == right, "===": left == right, "!=": left != right},
        **{"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right},
    }[sign]
