"""Importer: one version of a program as Python modules in memory.

Responsible for: the private package of a version, imports inside it, its builtins, its sources for tracebacks.
Not responsible for: reading archives (`archive`), what decorators declare (`declarations`), what print does (`output`).

A version is imported as `_stdb_modules.<hash>.<name>`, so that an old one can finish while a new one loads; a second
database with the same program gets a package of its own. Inside, imports that are relative or begin with the program's
own name find this version, by an `__import__` in its builtins; anything else is an ordinary import.

Source: spec 08, "Publishing and loading".
"""

import ast
import builtins
import itertools
import linecache
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

from stdb.modules.python.declarations import SOURCE_ROOT

__all__ = ["ROOT_PACKAGE", "Version"]

ROOT_PACKAGE = "_stdb_modules"
_numbers = itertools.count(2)
_DECLARES = re.compile(
    r"^@(?:\w+\.)*(?:table|reducer|init|client_connected|client_disconnected|view|procedure|http_route|migrate)\b",
    re.MULTILINE,
)
"""Tells a module that declares something from one that is there for other purposes, a test for one."""


class Version:
    """One import of a program. `unload` forgets it; functions that still run go on.

    Args:
        sources: Source text by path: `name.py`, or `name/__init__.py` and others.
        name: The program's own name.
        hash_hex: Its hash.
    """

    def __init__(self, sources: Mapping[str, str], name: str, hash_hex: str) -> None:
        self.name = name
        unique = hash_hex
        while f"{ROOT_PACKAGE}.{unique}" in sys.modules:
            unique = f"{hash_hex}_{next(_numbers)}"
        self.package = f"{ROOT_PACKAGE}.{unique}"
        self.directory = f"{SOURCE_ROOT}{unique}/"
        """What the file names of this version's code begin with."""
        self._codes: dict[str, CodeType] = {}
        self._facades: dict[str, ModuleType] = {}
        self._sources = {self._module_of(path): (path, text) for path, text in sources.items()}
        self.builtins: dict[str, Any] = {**vars(builtins), "__import__": self._import}
        """What the version's code has as builtins; may be changed before the import."""
        self.facades: dict[str, Callable[[ModuleType], ModuleType]] = {}
        """By name of a module: what the version's code gets instead of it; may be filled before the import."""
        _install_package(ROOT_PACKAGE)
        _install_package(self.package)
        _FINDER.versions[self.package] = self
        for path, text in sources.items():
            filename = self.directory + path
            linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)

    def compile(self) -> Iterator[SyntaxError]:
        """Compile every source; yield what does not compile."""
        for module, (path, text) in self._sources.items():
            try:
                self._codes[module] = compile(text, self.directory + path, "exec", dont_inherit=True)
            except (RecursionError, MemoryError):  # so much nesting makes either
                yield SyntaxError("an expression is nested too deeply", (self.directory + path, 1, None, None))
            except (SyntaxError, ValueError) as error:  # a null character makes either, without a place
                if isinstance(error, SyntaxError) and error.filename is not None:
                    yield error
                else:
                    yield SyntaxError(str(error), (self.directory + path, 1, None, None))

    def import_all(self) -> dict[str, dict[str, Any]]:
        """Import the program's own module and the others in it that declare something; return all namespaces."""
        builtins.__import__(f"{self.package}.{self.name}")
        for module, (_, text) in sorted(self._sources.items()):
            if _DECLARES.search(text):
                builtins.__import__(module)
        return self.namespaces()

    def trees(self) -> Iterator[tuple[str, ast.Module, dict[str, Any]]]:
        """Yield file name, syntax tree and namespace of every imported module."""
        for module, namespace in self.namespaces().items():
            path, text = self._sources[module]
            try:
                tree = ast.parse(text)
            except (RecursionError, MemoryError):  # it compiled, but only just
                continue
            yield self.directory + path, tree, namespace

    def namespaces(self) -> dict[str, dict[str, Any]]:
        """Return the namespaces of what is imported so far, by dotted name."""
        return {name: vars(sys.modules[name]) for name in self._sources if name in sys.modules}

    def owns(self, filename: str) -> bool:
        """Tell whether code of that file name is this version's."""
        return filename.startswith(self.directory)

    def unload(self) -> None:
        """Forget the version: its modules and its sources."""
        _FINDER.versions.pop(self.package, None)
        for module in [each for each in sys.modules if each == self.package or each.startswith(self.package + ".")]:
            del sys.modules[module]
        vars(sys.modules[ROOT_PACKAGE]).pop(self.package.rpartition(".")[2], None)
        for path, _ in self._sources.values():
            linecache.cache.pop(self.directory + path, None)

    def spec(self, module: str) -> ModuleSpec | None:
        """Return how a module of this version is made; None when there is none of that name."""
        if module not in self._sources:
            if not any(known.startswith(module + ".") for known in self._sources):
                return None
            return ModuleSpec(module, _EmptyLoader(), is_package=True)  # a directory without __init__.py
        path, _ = self._sources[module]
        is_package = path.endswith("__init__.py")
        return ModuleSpec(module, _MemoryLoader(self), origin=self.directory + path, is_package=is_package)

    def code(self, module: str) -> CodeType:
        """Return the compiled source of a module."""
        return self._codes[module]

    def source(self, module: str) -> str:
        """Return the source of a module."""
        return self._sources[module][1]

    def _module_of(self, path: str) -> str:
        parts = path.removesuffix(".py").split("/")
        if parts[-1] == "__init__":
            parts.pop()
        return ".".join((self.package, *parts))

    def _import(
        self,
        name: str,
        namespace: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import as `__import__` does, the program's own name meaning this version."""
        if level or name.partition(".")[0] != self.name:
            found = builtins.__import__(name, namespace, local, names or (), level)
            return found if level else self._seen(found)
        full = f"{self.package}.{name}"
        if names:
            return builtins.__import__(full, namespace, local, names, 0)
        builtins.__import__(full)
        return sys.modules[f"{self.package}.{self.name}"]

    def _seen(self, module: ModuleType) -> ModuleType:
        """Return a module as the version's code sees it."""
        make = self.facades.get(module.__name__)
        if make is None:
            return module
        if module.__name__ not in self._facades:
            self._facades[module.__name__] = make(module)
        return self._facades[module.__name__]


class _EmptyLoader(Loader):
    """Makes packages that have no source."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the default module be made."""

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing."""


class _MemoryLoader(Loader):
    """Runs the sources of a version."""

    def __init__(self, version: Version) -> None:
        self._version = version

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the default module be made."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's source, with the version's builtins."""
        namespace = vars(module)
        namespace["__file__"] = module.__spec__.origin if module.__spec__ else None
        namespace["__builtins__"] = self._version.builtins
        exec(self._version.code(module.__name__), namespace)

    def get_source(self, fullname: str) -> str:
        """Return a module's source, for `inspect` and tracebacks."""
        return self._version.source(fullname)


class _Finder(MetaPathFinder):
    """Finds modules of loaded versions, and of nothing else."""

    def __init__(self) -> None:
        self.versions: dict[str, Version] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to make a module of a version."""
        root, _, rest = fullname.partition(".")
        if root != ROOT_PACKAGE:
            return None
        version = self.versions.get(f"{root}.{rest.partition('.')[0]}")
        return version.spec(fullname) if version is not None else None


_FINDER = _Finder()


def _install_package(name: str) -> None:
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = []
        package.__spec__ = ModuleSpec(name, _EmptyLoader(), is_package=True)
        sys.modules[name] = package
