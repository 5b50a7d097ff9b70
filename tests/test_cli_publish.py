"""The command `publish` over a database that is there: what it shows, asks and does, as the recorded runs did."""

import re
from collections.abc import Iterator
from io import StringIO
from itertools import count
from pathlib import Path

import pytest

from stdb.cli import publish as command
from tests.cli_harness import RECORDED, Place, own_place, run, serve_kitchen
from tests.interop.processes import Server

pytestmark = pytest.mark.slow  # a server of its own

ANSI = re.compile(r"\x1b\[\d+m")
V1 = """\
from stdb import *

@table(public=True)
class Migr:
    id: u32 = primary_key()
    v: str

@reducer
def add(ctx: ReducerContext, id: u32) -> None:
    ctx.db[Migr].insert(Migr(id=id, v="x"))
"""
V2 = V1 + "\n@table(public=True)\nclass AddedInV2:\n    id: u32 = primary_key()\n"
V3 = V1.replace("    v: str\n", "    v: str\n    extra: u32 = 7\n")
V4 = V1.replace("    v: str\n", "    v: u64\n").replace('v="x"', "v=1")
QUESTION = "The above changes will BREAK existing clients. Do you want to proceed? [y/N]"
MANUAL = (
    "Errors occurred:\n"
    "Changing the type of column v in table migr from String to U64 requires a manual migration\n\n"
    "Removing a column extra from table migr requires a manual migration\n\n\n"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with own_place(tmp_path_factory.mktemp("home")) as place:
        yield place


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    with serve_kitchen("kitchen") as server:
        yield server


@pytest.fixture
def home(server: Server, tmp_path: Path) -> Iterator[Place]:
    """Another user's home."""
    with own_place(tmp_path) as place:
        yield place


_NUMBERS = count(1)


class Publisher:
    """Publishes versions of one module to one database."""

    def __init__(self, server: Server, directory: Path, name: str) -> None:
        self.server, self.name = server, name
        self.path = directory / "migr.py"

    def __call__(self, source: str, *options: str, stdin: str = "") -> tuple[int, str, str]:
        self.path.write_text(source)
        code, out, err = run("publish", self.name, "-p", str(self.path), "-s", self.server.http, *options, stdin=stdin)
        return code, out.removeprefix(f"Uploading to {self.server.http} => {self.server.http}\n"), err

    def rows(self) -> str:
        return run("sql", self.name, "select * from migr", "-s", self.server.http).out


@pytest.fixture
def publish(server: Server, tmp_path: Path) -> Publisher:
    publisher = Publisher(server, tmp_path, f"migr-{next(_NUMBERS)}")
    assert publisher(V1)[0] == 0
    assert run("call", publisher.name, "add", "1", "-s", server.http).code == 0
    return publisher


def recorded(index: int, name: str) -> str:
    """Return what the official command printed, from the check on, without colours and under our name."""
    out = ANSI.sub("", RECORDED[index]["stdout"])
    return out[out.index("Checking for") :].replace("cli-kitchen", name)


def unidentified(out: str) -> str:
    return re.sub(r"c200[0-9a-f]{60}|<db:[a-z0-9-]+>", "<identity>", out)


def test_a_plan_is_shown_and_done(publish: Publisher) -> None:
    code, out, err = publish(V2)
    assert (code, err) == (0, "")
    assert unidentified(out) == unidentified(recorded(64, publish.name))
    code, out, err = publish(V2)
    assert (code, unidentified(out), err) == (0, unidentified(recorded(63, publish.name)), "")


@pytest.mark.parametrize(("index", "stdin"), [(65, "n\n"), (66, "y\n")])
def test_what_breaks_clients_is_asked(publish: Publisher, index: int, stdin: str) -> None:
    assert publish(V2)[0] == 0
    code, out, err = publish(V3, stdin=stdin)
    assert (code, err) == (RECORDED[index]["exit"], RECORDED[index].get("stderr", ""))
    assert unidentified(out) == unidentified(recorded(index, publish.name))
    assert (" 7" in publish.rows()) == (index == 66)


@pytest.mark.parametrize("options", [("--break-clients",), ("--break-clients", "-y"), ("--yes=break-clients,remote",)])
def test_what_breaks_clients_is_not_asked_where_it_was_answered(publish: Publisher, options: tuple[str, ...]) -> None:
    code, out, err = publish(V3, *options)
    assert (code, err) == (0, "")
    assert QUESTION not in out
    why = "--break-clients" if options == ("--break-clients",) else "--yes"
    assert f"schema changes\n\nSkipping confirmation due to {why}\nPublishing module...\n" in out


def test_other_answers_do_not_answer_it(publish: Publisher) -> None:
    code, out, err = publish(V3, "--yes=remote", "--yes=delete-data")
    assert (code, err) == (1, "Error: Publishing aborted by user\n")
    assert out.endswith(f"{QUESTION}Aborting\n")


@pytest.mark.parametrize("options", [(), ("-y",), ("--yes=migrate",), ("--delete-data=never",)])
def test_what_no_rule_can_do_is_refused_with_what_to_do(publish: Publisher, options: tuple[str, ...]) -> None:
    assert publish(V3, "-y")[0] == 0
    before = publish.rows()
    code, out, err = publish(V4, *options)
    assert (code, out) == (1, recorded(67, publish.name))
    assert err.startswith(RECORDED[67]["stderr"])
    assert "@migrate" in err
    assert publish.rows() == before


def test_on_conflict_data_is_deleted_after_a_question(publish: Publisher) -> None:
    assert publish(V3, "-y")[0] == 0
    code, out, err = publish(V4, "--delete-data=on-conflict", stdin="y\n")
    assert (code, err) == (0, "")
    assert unidentified(out) == unidentified(recorded(69, publish.name))
    assert publish.rows().count("\n") == 2
    code, out, _ = publish(V4 + "\n@reducer\ndef more(ctx: ReducerContext) -> None: ...\n", "--delete-data=on-conflict")
    assert code == 0
    assert "DESTROY" not in out


@pytest.mark.parametrize(
    "options", [("--delete-data", "-y"), ("-cy",), ("--clear-database=always", "--yes=delete-data")]
)
def test_all_data_is_deleted_without_a_plan(publish: Publisher, options: tuple[str, ...]) -> None:
    code, out, err = publish(V4, *options)
    assert (code, err) == (0, "")
    assert out.startswith(f"This will DESTROY the current {publish.name} module, and ALL corresponding data.\n")
    assert "Checking" not in out
    assert publish.rows().count("\n") == 2


def test_an_answer_that_there_is_not_is_wrong_usage(publish: Publisher) -> None:
    code, _, err = publish(V3, "--yes=everything")
    assert code == 2
    assert "everything is none of all, remote, migrate, break-clients" in err


def test_somebody_elses_database_is_refused_at_the_check(publish: Publisher, home: Place) -> None:
    code, out, err = publish(V2)
    assert (code, out) == (1, "Checking for breaking changes...\n")
    assert "\nError: Pre-publish check failed with status 403 Forbidden: c200" in err
    assert err.endswith("update database\n")


def test_a_locked_database_keeps_its_data_until_it_is_unlocked(publish: Publisher) -> None:
    at = ("-s", publish.server.http, publish.name)
    identity = re.search(r"c200[0-9a-f]{60}", publish(V1)[1])
    assert identity is not None
    locked = f"Database {identity[0]} is now locked. It cannot be deleted until unlocked.\n"
    assert run("lock", *at) == (0, locked, "")
    assert run("lock", *at) == (0, locked, "")
    code, _, err = publish(V4, "-c", "-y")
    assert code == 1
    assert err.startswith("Error: Database is locked and cannot be reset with --delete-data.")
    assert publish(V2)[0] == 0
    assert run("delete", "-y", *at).code == 1
    assert run("unlock", *at) == (0, f"Database {identity[0]} is now unlocked.\n", "")
    assert run("delete", "-y", *at).code == 0
    assert run("unlock", *at).err.startswith("Error: No such database.\n")
    assert run("unlock", *at[:2], "nosuch-db").err.startswith("Error: failed to find database `nosuch-db`.\n")


@pytest.mark.parametrize(("terminal", "plain", "style"), [
    (True, "", "AnsiColor"), (True, "1", "NoColor"), (False, "", "NoColor"),
])  # fmt: skip
def test_the_plan_has_colours_where_a_terminal_shows_them(
    terminal: bool, plain: str, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Screen(StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setenv("NO_COLOR", plain)
    monkeypatch.setattr("sys.stdout", Screen())
    assert command._style() == style


def test_a_migration_by_function_is_shown(publish: Publisher) -> None:
    source = V4 + "\n@migrate(Migr)\ndef migr(old: OldRow, ctx: MigrationContext) -> Migr:\n"
    code, out, err = publish(source + "    return Migr(id=old.id, v=len(old.v) + 41)\n", "--break-clients")
    assert (code, err) == (0, "")
    assert re.search(r"▸ Migrated table migr by @migrate function migr \(migr\.py:\d+\)\n", out)
    assert " 42" in publish.rows()
