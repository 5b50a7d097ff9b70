"""Loading: files and packages, versions side by side, imports inside, what stops a publish."""

import gc
import linecache
import logging
import sys
import traceback

import pytest

from stdb.errors import SchemaError
from stdb.modules.python import loader
from stdb.modules.python.archive import pack
from stdb.modules.python.importer import ROOT_PACKAGE
from tests.python_module_harness import Lines, Running, load

SAY = """
from stdb import *
@reducer
def say(ctx: ReducerContext) -> None:
    print("{}")
"""
PACKAGE = {
    "game/__init__.py": "from game.tables import Item\nfrom . import rules\nimport game.deep.inner\nimport game\n"
    "assert game.deep.inner.VALUE == game.rules.BONUS == 3\n",
    "game/tables.py": "from stdb import *\n@table\nclass Item:\n    id: u32 = primary_key()\n    worth: u32\n",
    "game/rules.py": "from stdb import *\nfrom .tables import Item\nfrom .deep.inner import VALUE\nBONUS = VALUE\n"
    "@reducer\ndef add(ctx: ReducerContext, id: u32) -> None:\n    ctx.db[Item].insert(Item(id=id, worth=BONUS))\n",
    "game/deep/inner.py": "from game import tables\nfrom ..tables import Item\nassert tables.Item is Item\nVALUE = 3\n",
    "game/unmentioned.py": "from stdb import *\n@reducer\ndef late(ctx: ReducerContext) -> None:\n    print('late')\n",
    "game/test_game.py": "raise SystemExit('only code that declares something is imported')\n",
    "game/data.txt": "not code",
}


def errors_of(files: dict[str, str], name: str | None = None) -> list[str]:
    with pytest.raises(SchemaError) as caught:
        load(files, name)
    return caught.value.errors


def test_a_package_with_relative_absolute_and_nested_imports_is_one_module() -> None:
    game = Running(PACKAGE)
    assert game.module.name == "game"
    game.call("add", 1)
    assert game.rows("item") == [(1, 3)]
    game.call("late")
    assert game.log.messages == ["late"]


def test_a_package_may_be_given_from_inside() -> None:
    inside = {path.removeprefix("game/"): text for path, text in PACKAGE.items()}
    one, other = load(inside, "game"), load(PACKAGE)
    assert one.program_hash == other.program_hash


def test_the_same_source_is_the_same_program_and_another_is_another() -> None:
    assert load(SAY).program_hash == load(SAY).program_hash != load(SAY + "\n").program_hash
    assert len(load(SAY).program_hash) == 32


def test_the_archive_of_a_module_loads_as_the_same_program() -> None:
    body = pack({path: text.encode() for path, text in PACKAGE.items()})
    assert loader.load_archive(body).program_hash == load(PACKAGE).program_hash


def test_two_versions_run_side_by_side_and_an_old_one_finishes_after_it_is_replaced() -> None:
    old, new = Running(SAY.format("old")), Running(SAY.format("new"))
    old.call("say")
    new.call("say")
    old.call("say")
    assert (old.log.messages, new.log.messages) == (["old", "old"], ["new"])


def test_a_module_that_nobody_holds_is_forgotten() -> None:
    module = load(SAY)
    package, directory = module._version.package, module._version.directory
    logging.getLogger(package + ".x")
    assert package in sys.modules
    assert any(name.startswith(directory) for name in linecache.cache)
    del module
    gc.collect()
    assert not [name for name in sys.modules if name.startswith(package)]
    assert not [name for name in linecache.cache if name.startswith(directory)]
    assert not [name for name in logging.Logger.manager.loggerDict if name.startswith(package)]


def test_a_refused_module_is_forgotten_too() -> None:
    before = {name for name in sys.modules if name.startswith(ROOT_PACKAGE)}
    errors_of({"chat.py": "from stdb import *\nclass X: pass\n@table\nclass Y:\n    x: X\n"})
    gc.collect()
    assert {name for name in sys.modules if name.startswith(ROOT_PACKAGE)} == before


def test_tracebacks_show_the_lines_of_their_own_version() -> None:
    texts = []
    for number in (1, 2):
        module = load(
            f"from stdb import *\n@reducer\ndef fail(ctx: ReducerContext) -> None:\n    raise KeyError({number})\n"
        )
        function = module._program.reducers[0].declaration.function
        try:
            function(None)
        except KeyError as error:
            texts.append("".join(traceback.format_exception(error)))
    assert "raise KeyError(1)" in texts[0]
    assert "raise KeyError(2)" in texts[1]


def test_other_imports_come_from_the_environment() -> None:
    running = Running(
        """
        import math, json as j, os.path
        from collections import Counter
        import email.message
        from stdb import *
        @reducer
        def use(ctx: ReducerContext) -> None:
            print(math.pi > 3, j.dumps([1]), os.path.sep, Counter("aa"), email.message.Message is not None)
        """
    )
    running.call("use")
    assert running.log.messages == ["True [1] / Counter({'a': 2}) True"]


def test_syntax_errors_of_all_files_are_told_at_once() -> None:
    assert errors_of(
        {
            "game/__init__.py": "from . import a\n",
            "game/a.py": "x = = 3\n",
            "game/b.py": "ok = 1\n\ndef f(:\n",
            "game/c.py": "null = '\0'\n",
        }
    ) == [
        "game/a.py:1: SyntaxError: invalid syntax",
        "game/b.py:3: SyntaxError: invalid syntax",
        "game/c.py:1: SyntaxError: source code string cannot contain null bytes",
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import nothing_of_the_kind", "chat.py:2: ModuleNotFoundError: No module named 'nothing_of_the_kind'; "
         "install it where the server runs, or remove the import (while the module was imported)"),
        ("from stdb import tabel", "chat.py:2: ImportError: cannot import name 'tabel' from 'stdb' "),
        ("1 / 0", "chat.py:2: ZeroDivisionError: division by zero (while the module was imported)"),
        ("raise SystemExit(3)", "chat.py:2: SystemExit: 3 (while the module was imported)"),
        ("def f():\n    raise ValueError\nf()", "chat.py:3: ValueError (while the module was imported)"),
        ("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
         "chat.py:4: E: (its text cannot be had: SystemExit) (while the module was imported)"),
        ("x = " + "-" * 100_000 + "1", "chat.py:1: SyntaxError: an expression is nested too deeply"),
        ("from stdb import *\ndef end(): raise SystemExit\n@table\nclass T:\n    x: 'end()'",
         "chat.py:3: SystemExit (while the module was imported)"),
        ("import json\njson.loads('{')", "chat.py:3: JSONDecodeError: Expecting property name"),
    ],
)  # fmt: skip
def test_an_import_that_fails_names_the_modules_line(source: str, expected: str) -> None:
    (error,) = errors_of({"chat.py": "\n" + source})
    assert error.startswith(expected)


def test_a_failed_import_does_not_hide_other_mistakes_nor_invent_some() -> None:
    errors = errors_of(
        {
            "chat.py": "from __future__ import annotations\nfrom stdb import *\n@table\nclass A:\n    x: complex\n"
            "    y: Later\n1 / 0\n@product\nclass Later:\n    z: int\n"
        }
    )
    assert errors == [
        "chat.py:7: ZeroDivisionError: division by zero (while the module was imported)",
        "chat.py:5: A.x: complex is no column type: make a `@product` class of two floats",
    ]


def test_text_that_is_no_python_is_refused() -> None:
    with pytest.raises(SchemaError) as caught:
        loader.load({"chat.py": b"\xff\xfe\x00"})
    assert caught.value.errors[0].startswith("chat.py:1: the file is no Python text: ")
    loader.load({"chat.py": "# -*- coding: latin-1 -*-\nname = 'é'\r\n".encode("latin-1")})
    loader.load({"chat.py": b"\xef\xbb\xbfx = 1\n"})


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, "found none"),
        ({"readme.txt": ""}, "found none"),
        ({"a.py": "", "b.py": ""}, "found a, b"),
        ({"a/__init__.py": "", "b.py": ""}, "found a, b"),
        ({"a-b.py": ""}, "'a-b' cannot be a Python module's name"),
    ],
)
def test_a_program_is_one_module_or_one_package(files: dict[str, str], found: str) -> None:
    (error,) = errors_of(files)
    assert found in error


def test_the_name_chooses_among_several_candidates() -> None:
    assert load({"a/__init__.py": "", "setup.py": "1 / 0"}, "a").name == "a"


def test_requirements_are_checked_against_the_servers_environment() -> None:
    project = """
        [project]
        name = "game"
        dependencies = ["trio", "TRIO>=0.20,<99", "trio==0.1", "trio>=99.0", "nothing-of-the-kind", "=",
                        "pytest~=8.0; python_version<'3'",
                        "trio!=0.1.*", "trio~=0.20"]
        """
    assert errors_of({"game/__init__.py": "", "game/pyproject.toml": project}) == [
        f"game/pyproject.toml:1: {text}"
        for text in (
            f"the requirement 'trio==0.1' is not met: the server has version {trio_version()}",
            f"the requirement 'trio>=99.0' is not met: the server has version {trio_version()}",
            "the requirement 'nothing-of-the-kind' is not installed where the server runs: install it there",
            "the requirement '=' cannot be read",
        )
    ]
    assert errors_of({"game/__init__.py": "", "game/pyproject.toml": "]"})[0].startswith(
        "game/pyproject.toml:1: the file"
    )


def trio_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("trio")


def test_module_level_state_is_warned_about_once() -> None:
    source = """
        from stdb import *
        __all__ = ["x"]
        CONSTANT = (1, 2)
        cache: dict[str, int] = {}
        counts = [0]
        number = 0
        @reducer
        def tick(ctx: ReducerContext) -> None:
            global number
            number += 1
        """
    running = Running(source)
    warned = [(line["level"], line["line"], line["message"].split(" is not")[0]) for line in running.log]
    assert warned == [
        ("Warn", 5, "module-level state `cache` (dict)"),
        ("Warn", 6, "module-level state `counts` (list)"),
        ("Warn", 10, "module-level state `number` (global)"),
    ]
    assert {line["filename"] for line in running.log} == {"chat.py"}
    again = Lines()
    running.module.attach(running.store, bytes(32), again)
    assert again == []


def test_tables_of_an_ordinary_library_are_not_the_modules() -> None:
    running = Running(
        """
        import tests.test_python_module_rows as library
        from stdb import *
        @reducer
        def probe(ctx: ReducerContext) -> None:
            try:
                ctx.db[library.Hero]
            except KeyError as error:
                print(error)
        """
    )
    running.call("probe")
    assert running.module.definition.tables == ()
    assert running.log.messages == ["\"'Hero' is no table of this module\""]
