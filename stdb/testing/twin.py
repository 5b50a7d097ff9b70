"""Twin: a program as its test sees it, with the classes and functions that the test imported.

Responsible for: which table, view or function a class or function of the test is; rows and arguments as its objects.
Not responsible for: loading programs (`programs`), tables and clients (`tables`, `clients`).

The database runs a version of the program with classes of its own. What the test has in hand are other classes of the
same names, so everything crosses as bytes, read and written at the annotations of the test's own classes.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from stdb.errors import SchemaError
from stdb.modules.python.annotations import Annotations, ColumnType
from stdb.modules.python.declarations import (
    FunctionDeclaration,
    Place,
    ProcedureDeclaration,
    TableDeclaration,
    ViewDeclaration,
)
from stdb.modules.python.definition import Program
from stdb.modules.python.module import PythonModule
from stdb.modules.python.rows import RowShape, shape_of
from stdb.modules.python.signatures import Signatures
from stdb.modules.python.tables import TableHandle
from stdb.sats import bsatn
from stdb.sats.objects import ObjectShape
from stdb.sats.types import Product

__all__ = ["Function", "RowCodec", "Twin", "twin_of"]


class RowCodec(NamedTuple):
    """How the rows of a class of the test are read and written."""

    row_class: Any
    shape: ObjectShape
    row_shape: RowShape
    codec: bsatn.Codec


class Function:
    """A reducer or procedure of the program, called the way the test's own function is."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        params: bsatn.Codec,
        shape: ObjectShape,
        result: bsatn.Codec | None,
    ) -> None:
        self.name = name
        """What clients call it."""
        self.params = params
        assert isinstance(params.type, Product), "parameters are a product"
        self.parameters = params.type
        self.shape = shape
        """The objects that stand for its arguments."""
        self.result = result
        """What reads the result of a procedure; None for a reducer."""
        parameters = list(inspect.signature(function).parameters.values())
        self.signature = inspect.Signature(parameters[1:])

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the BSATN of arguments.

        Raises:
            TypeError: They are not those of the function.
            EncodeError: One does not fit its type.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature}: {error}") from None
        bound.apply_defaults()
        return self.params.encode(SimpleNamespace(**bound.arguments))


class Twin:
    """One program and the test's classes and functions of it. `python` None: those of the loaded program itself."""

    def __init__(self, module: PythonModule, python: ModuleType | None) -> None:
        self._program: Program = module._program
        self._package = module._version.package
        self._own = module.name
        self._python = python
        self._loaded = {} if python is not None else module._version.namespaces()
        self._annotations = Annotations(self._namespaces())
        self._signatures = Signatures(self._annotations, _refuse)
        self._rows: dict[Any, RowCodec] = {}
        self._functions: dict[str, Function] = {}

    # ------------------------------------------------------------------ names
    def relation(self, key: Any) -> str:
        """Return the name of the table or view that a class, handle, function or name means.

        Raises:
            KeyError: The program has no such table or view.
        """
        if isinstance(key, str):
            if key in self._relations():
                return key
        elif isinstance(key, TableHandle):
            return self.relation(key.name)
        elif (shape := shape_of(key)) is not None:
            for built in self._program.tables:
                mine = built.declaration
                if shape_of(mine.key) is not None and self._is(
                    mine.shape.name, mine.shape.module, shape.name, shape.module
                ):
                    return mine.name
        elif callable(key):
            for view in self._program.views:
                if self._is_function(view.declaration, key):
                    return view.declaration.name
        known = ", ".join(sorted(self._relations()))
        raise KeyError(f"{getattr(key, '__name__', key)!r} is no table and no view of {self._own}; it has {known}")

    def tables(self) -> list[str]:
        """Return the names of the tables."""
        return [built.declaration.name for built in self._program.tables]

    def key(self, table: str) -> Any:
        """Return what `ctx.db[…]` of the test takes for a table: its class, or the handle of a second table.

        A table that the test has no name for is its own key.
        """
        [declaration] = (built.declaration for built in self._program.tables if built.declaration.name == table)
        if shape_of(declaration.key) is not None:
            return self._class_of(table)
        handles = (value for names in self._namespaces().values() for value in names.values())
        return next((each for each in handles if isinstance(each, TableHandle) and each.name == table), table)

    def rows(self, key: Any) -> RowCodec:
        """Return how the rows of a table or view are read, as objects of the test's class.

        Raises:
            KeyError: As `relation`, or the test has no such class.
        """
        return self.codec(key if shape_of(key) is not None else self._class_of(self.relation(key)))

    def codec(self, row_class: Any) -> RowCodec:
        """Return how rows of a class are read and written."""
        found = self._rows.get(row_class)
        if found is None:
            shape = shape_of(row_class)
            assert shape is not None, f"{row_class!r} is a row class"
            read: ColumnType = self._annotations.row(shape)
            assert isinstance(read.shape, ObjectShape)
            codec = bsatn.object_codec(read.type, read.shape, self._annotations.typespace)
            found = self._rows[row_class] = RowCodec(row_class, read.shape, shape, codec)
        return found

    def function(self, key: Any) -> Function:
        """Return the reducer or procedure that a function of the test or a name means.

        Raises:
            KeyError: The program has no such function.
        """
        for declaration in self._callables():
            if declaration.name == key if isinstance(key, str) else self._is_function(declaration, key):
                found = self._functions.get(declaration.name)
                if found is None:
                    found = self._functions[declaration.name] = self._read_function(declaration)
                return found
        known = ", ".join(sorted(each.name for each in self._callables()))
        raise KeyError(
            f"{getattr(key, '__name__', key)!r} is no reducer and no procedure of {self._own}; it has {known}"
        )

    # ------------------------------------------------------------------ inside
    def _relations(self) -> set[str]:
        tables = {built.declaration.name for built in self._program.tables}
        return tables | {view.declaration.name for view in self._program.views}

    def _callables(self) -> list[FunctionDeclaration | ProcedureDeclaration]:
        return [
            *(built.declaration for built in self._program.reducers),
            *(built.declaration for built in self._program.procedures),
        ]

    def _class_of(self, relation: str) -> Any:
        """Return the test's class of the rows of a table or view."""
        for built in self._program.tables:
            if built.declaration.name == relation:
                return self._twin_of(built.declaration.shape.name, built.declaration.shape.module)
        for view in self._program.views:
            if view.declaration.name == relation:
                shape = shape_of(view.row_class)
                assert shape is not None, "a view returns rows"
                return self._twin_of(shape.name, shape.module)
        raise KeyError(relation)

    def _read_function(self, declaration: FunctionDeclaration | ProcedureDeclaration) -> Function:
        function = self._twin_of(declaration.function.__name__, declaration.owner)
        mine: Any = replace(declaration, function=function, owner=function.__module__)
        result = None
        if isinstance(declaration, ProcedureDeclaration):
            procedure = self._signatures.procedure(mine)
            assert procedure is not None, "what is wrong with it was raised"
            params, shape, returned = procedure.params, procedure.shape, procedure.result
            result = bsatn.object_codec(returned.type, returned.shape, self._annotations.typespace)
        else:
            reducer = self._signatures.reducer(mine)
            assert reducer is not None, "what is wrong with it was raised"
            params, shape = reducer.params, reducer.shape
        codec = bsatn.object_codec(params, shape, self._annotations.typespace)
        return Function(declaration.name, function, codec, shape, result)

    def _is_function(self, declaration: FunctionDeclaration | ProcedureDeclaration | ViewDeclaration, key: Any) -> bool:
        name, module = getattr(key, "__name__", ""), getattr(key, "__module__", "")
        return self._is(declaration.function.__name__, declaration.owner, name, module)

    def _is(self, name: str, module: str, test_name: str, test_module: str) -> bool:
        """Tell whether something of the loaded program is what the test knows by that name and module."""
        return name == test_name and test_module in (module, self._module_of(module))

    def _module_of(self, loaded: str) -> str:
        """Return the name by which the test imports a module of the loaded program."""
        if self._python is None:
            return loaded
        inside = loaded.removeprefix(f"{self._package}.{self._own}")
        return self._python.__name__ + inside

    def _twin_of(self, name: str, module: str) -> Any:
        if self._python is None:
            return self._loaded[module][name]
        return getattr(import_module(self._module_of(module)), name)

    def _namespaces(self) -> dict[str, Mapping[str, Any]]:
        """Return the namespaces that annotations are read in."""
        if self._python is None:
            return dict(self._loaded)
        declarations: list[TableDeclaration | FunctionDeclaration | ProcedureDeclaration | ViewDeclaration]
        declarations = [*(each.declaration for each in self._program.tables), *self._callables()]
        declarations += (each.declaration for each in self._program.views)
        for owner in {declaration.owner for declaration in declarations}:
            import_module(self._module_of(owner))
        own = self._python.__name__
        return {
            name: vars(each)
            for name, each in list(sys.modules.items())
            if each is not None and (name == own or name.startswith(own + "."))
        }


_TWINS: WeakKeyDictionary[ModuleType, tuple[bytes, Twin]] = WeakKeyDictionary()


def twin_of(module: PythonModule, program: bytes, python: ModuleType | None) -> Twin:
    """Return the twin of a program; the same every time where the test imported it."""
    if python is None:
        return Twin(module, None)
    known = _TWINS.get(python)
    if known is None or known[0] != program:
        known = _TWINS[python] = program, Twin(module, python)
    return known[1]


def _refuse(place: Place | None, text: str, *, unresolved: bool = False) -> None:
    raise SchemaError([text if place is None else f"{place}: {text}"])
