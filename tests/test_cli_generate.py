"""`generate`: from where definitions come, what is written, kept and removed, and what it says to mistakes."""

import json
from pathlib import Path

import pytest

from stdb.modules.python.loader import load
from stdb.schema import documents
from tests.cli_harness import run
from tests.interop.npm import ROOT

CHAT = ROOT / "examples" / "quickstart_chat"


def generate(out: Path, *arguments: str, lang: str = "python", stdin: str = "") -> tuple[int, str, str]:
    return run("generate", "--lang", lang, "-o", str(out), *arguments, stdin=stdin)


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*.*")}


def test_a_module_on_the_disk_gets_bindings_without_a_server(tmp_path: Path) -> None:
    code, out, err = generate(tmp_path / "bindings", "-p", str(CHAT))
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"Creating directory {tmp_path / 'bindings'}"
    assert out.splitlines()[-1] == "Generate finished successfully."
    assert names(tmp_path / "bindings") >= {"__init__.py", "user.py", "message.py", "send_message_reducer.py"}


def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    generate(tmp_path, "-p", str(CHAT))
    (tmp_path / "user.py").write_text("changed by hand")
    _, out, _ = generate(tmp_path, "-p", str(CHAT))
    assert out == f"Writing file {tmp_path / 'user.py'}\nGenerate finished successfully.\n"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_definition_in_a_file_or_on_stdin_serves_as_well(tmp_path: Path, wrapped: bool) -> None:
    module = load({"notes.py": b"from stdb import table\n@table(public=True)\nclass Note:\n    text: str\n"})
    document = documents.to_json(module.definition, 10)
    text = json.dumps({"V10": document} if wrapped else document)
    (tmp_path / "definition.json").write_text(text)
    assert generate(tmp_path / "a", "--module-def", str(tmp_path / "definition.json"))[0] == 0
    assert generate(tmp_path / "b", "--module-def", "-", stdin=text)[0] == 0
    assert names(tmp_path / "a") == names(tmp_path / "b") == {"__init__.py", "_values.py", "note.py"}


def test_c_sharp_has_a_namespace(tmp_path: Path) -> None:
    code, _, err = generate(tmp_path, "--sdk", "0.11", "--namespace", "Chat.Net", "-p", str(CHAT), lang="csharp")
    assert (code, err) == (0, "")
    assert "namespace Chat.Net" in (tmp_path / "user.cs").read_text()
    assert (tmp_path / "_Globals" / "SpacetimeDBClient.cs").is_file()


def test_files_of_earlier_bindings_are_deleted_only_when_one_agrees(tmp_path: Path) -> None:
    generate(tmp_path, "-p", str(CHAT))
    old, own = tmp_path / "gone_reducer.py", tmp_path / "mine.py"
    old.write_text((tmp_path / "user.py").read_text())
    own.write_text("print()\n")
    _, out, _ = generate(tmp_path, "-p", str(CHAT), stdin="n\n")
    assert f"  {old}\n" in out
    assert "Files not deleted." in out
    assert old.exists()
    generate(tmp_path, "-p", str(CHAT), "--yes")
    assert not old.exists()
    assert own.exists()


@pytest.mark.parametrize(
    ("arguments", "lang", "said"),
    [
        ((), "python", "name one source: a DATABASE, --module-path PATH, --bin-path FILE or --module-def FILE."),
        (("chat", "-p", "x.py"), "python", "name one source"),
        (("-p", "nowhere.py"), "python", "cannot read the module nowhere.py: No such file or directory"),
        (("--module-def", "-"), "python", "the definition - is no JSON"),
        (("-p", str(CHAT)), "rust", "no bindings can be made for rust: --lang is one of python, csharp."),
        (("-p", str(CHAT)), "csharp", "say which SDK the bindings are for: --lang csharp --sdk 0.11"),
        (("-p", str(CHAT), "--sdk", "1.0"), "python", "no bindings for SDK 1.0: --lang python has --sdk 0.7."),
        (("-p", str(CHAT), "--namespace", "X"), "python", "--namespace is for --lang csharp"),
    ],
)
def test_mistakes_are_told_with_what_to_do(tmp_path: Path, arguments: tuple[str, ...], lang: str, said: str) -> None:
    code, out, err = generate(tmp_path / "out", *arguments, lang=lang)
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {said}")
    assert not (tmp_path / "out").exists()


def test_a_module_with_a_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    module = tmp_path / "broken.py"
    module.write_text("from stdb import table\n@table\nclass Note:\n    text: set\n")
    code, _, err = generate(tmp_path / "out", "-p", str(module))
    assert code == 1
    assert f"the module {module} cannot be loaded" in err
    assert "broken.py:4" in err or "broken.py:3" in err


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = generate(tmp_path / "file" / "out", "-p", str(CHAT))
    assert code == 1
    assert "cannot write" in err
    assert "Not a directory" in err
