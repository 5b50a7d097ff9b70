"""Environment variables of a database: set by a publish, kept with its data, read by its module, shown to its owner."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from stdb.actors.refusals import EnvironmentRefused
from stdb.cli.api import Api
from stdb.cli.config import Config, config_path
from stdb.errors import ModuleFault
from stdb.testing import TestHost
from stdb.testing.plugin import HostFactory
from tests import environment_pier as pier
from tests.cli_harness import own_place, run
from tests.environment_pier import Note
from tests.interop.processes import Server, serve

PIER = Path(pier.__file__)


@pytest.fixture
def host(stdb_host: HostFactory) -> TestHost:
    return stdb_host(pier, env={"FLAG": "red"})


def notes(host: TestHost) -> list[str]:
    return [note.text for note in host[Note]]


def transactions(host: TestHost) -> int:
    """Return how many transactions the database has."""
    return host._look().transaction_count


# What a module reads


def test_init_and_reducers_read_values(host: TestHost) -> None:
    alice = host.connect()
    for name in ("FLAG", "PILOT"):
        alice.call(pier.observe, name)
    assert notes(host) == ["opened under red", "'red'", "None"]


def test_a_procedure_and_routes_read_values(host: TestHost) -> None:
    assert host.connect().call(pier.flag_now) == "red None <environment: FLAG, PILOT, WEATHER>"
    assert host.request("GET", "/flag").body == host.request("GET", "/waiting").body == b"red"


def test_what_has_no_value_or_is_not_declared_raises(host: TestHost) -> None:
    alice = host.connect()
    for function, name, told in (
        (pier.insist, "PILOT", "the environment variable PILOT has no value"),
        (pier.observe, "HOME", 'environment key "HOME" is not declared by this module'),
    ):
        with pytest.raises(ModuleFault) as caught:
            alice.call(function, name)
        assert told in str(caught.value.__cause__)
    assert notes(host) == ["opened under red"]


def test_a_publish_changes_values_and_views_follow_without_a_disconnect(host: TestHost) -> None:
    alice = host.connect()
    alice.subscribe(pier.flag)
    assert [row.text for row in alice.rows(pier.flag)] == ["red with None"]
    host.publish(pier, env={"PILOT": "Ann", "WEATHER": "calm"})
    assert not alice.closed
    assert [row.text for row in alice.rows(pier.flag)] == ["red with Ann"]
    before = len(alice.updates)
    host.publish(pier, env={"WEATHER": "half a gale"})  # no view reads it
    assert len(alice.updates) == before
    alice.call(pier.observe, "WEATHER")
    assert notes(host)[-1] == "'half a gale'"


def test_the_same_values_again_are_no_transaction(host: TestHost) -> None:
    before = transactions(host)
    host.publish(pier, env={"FLAG": "red"})
    assert transactions(host) == before
    host.publish(pier, env={"FLAG": "blue"})
    assert transactions(host) == before + 1


def test_values_outlive_a_crash_and_another_program(host: TestHost, tmp_path: Path) -> None:
    host.publish(pier, env={"PILOT": "Bea"})
    host.crash()
    assert host.connect().call(pier.flag_now).startswith("red Bea")
    other = tmp_path / "pier.py"
    other.write_text(PIER.read_text() + "\n\n@reducer\ndef more(ctx: ReducerContext) -> None:\n    pass\n")
    host.publish(other)
    host.connect().call("observe", "PILOT")
    assert [row["text"] for row in host.connect("owner").sql("SELECT * FROM note")] == ["opened under red", "'Bea'"]


def test_a_module_that_lacks_a_value_is_not_published(stdb_host: HostFactory, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentRefused) as caught:
        stdb_host(pier)
    assert caught.value.missing == ("FLAG",)
    host = stdb_host(pier, env={"FLAG": "red", "OTHER": "kept"})
    needy = tmp_path / "pier.py"
    needy.write_text(PIER.read_text().replace('"PILOT", optional=True', '"PILOT"'))
    with pytest.raises(EnvironmentRefused, match='environment key "PILOT": required value is missing'):
        host.publish(needy)
    with pytest.raises(EnvironmentRefused, match='environment key "WEATHER": value does not satisfy'):
        host.publish(pier, env={"WEATHER": "a secret"})
    host.connect().call(pier.observe, "FLAG")  # the old program goes on
    host.publish(needy, env={"PILOT": "Ann"})
    assert host.connect("owner").sql("SELECT * FROM st_env WHERE key = 'OTHER'") == [{"key": "OTHER", "value": "kept"}]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('environment_variable("9A")', "cannot be called '9A'"),
        ('environment_variable("A", choices=[])', "has 0 choices"),
        ('environment_variable("A", choices=[1])', "choices of the environment variable A are texts"),
        ('environment_variable("FLAG")', "FLAG is declared at"),
    ],
)
def test_a_bad_declaration_names_its_line(stdb_host: HostFactory, tmp_path: Path, line: str, told: str) -> None:
    wrong = tmp_path / "pier.py"
    wrong.write_text(f"{PIER.read_text()}\n{line}\n")
    with pytest.raises(Exception, match=told) as caught:
        stdb_host(wrong, env={"FLAG": "red"})
    assert f"pier.py:{len(wrong.read_text().splitlines())}" in str(caught.value)


def test_the_catalogue_has_the_table_once_it_is_used(stdb_host: HostFactory, tmp_path: Path) -> None:
    plain = tmp_path / "plain.py"
    plain.write_text("from stdb import table\n\n@table(public=True)\nclass A:\n    x: int\n")
    host = stdb_host(plain)
    owner = host.connect("owner")
    assert len(owner.sql("SELECT * FROM st_table")) == 21
    assert owner.sql("SELECT * FROM st_env") == []
    host.publish(plain, env={"A": "1"})
    assert owner.sql("SELECT table_name FROM st_table WHERE table_id = 21") == [{"table_name": "st_env"}]
    assert owner.sql("SELECT index_name FROM st_index WHERE table_id = 21") == [{"index_name": "st_env_key_idx_btree"}]
    host.crash()
    assert len(host.connect("owner").sql("SELECT * FROM st_table")) == 22


# The command line and HTTP


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    with own_place(home), serve("--publish", f"{PIER}=started", "--env", "FLAG=from the start") as running:
        yield running


def published(server: Server, name: str, *options: str) -> tuple[int, str]:
    code, out, err = run("publish", "-p", str(PIER), name, *options, "-y", "--server", server.http)
    return code, out + err


def refused(server: Server, path: str) -> tuple[int, str]:
    """Return status and text of what a stranger gets."""
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(f"{server.http}/v1/database/{path}")
    return caught.value.code, caught.value.read().decode()


def test_serve_sets_what_it_publishes(server: Server) -> None:
    assert server.read("/v1/database/started/route/flag") == "from the start"
    code, _, said = run("serve", "-l", "127.0.0.1:0", "--env", "9=x")
    assert (code, "a variable's name" in said) == (1, True)


def test_publish_sets_and_removes_and_env_shows_names_alone(server: Server, tmp_path: Path) -> None:
    code, said = published(server, "pier")
    assert code == 1
    assert "The module needs environment variables that have no value: FLAG." in said
    assert "--env FLAG=VALUE" in said
    file = tmp_path / "pier.env"
    file.write_text("# flags\n\nFLAG=half a = red\nSPARE='x'\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PILOT", 'Ännchen "A", B')
        assert published(server, "pier", "--env-file", str(file), "--env", "PILOT")[0] == 0
    code, out, _ = run("sql", "pier", "SELECT * FROM st_env", "--server", server.http)
    assert code == 0
    for text in ('"half a = red"', "\"'x'\"", '"Ännchen "A", B"'):
        assert text in out, out
    shown = run("env", "pier", "--server", server.http).out
    assert "Ännchen" not in shown
    assert [line.split() for line in shown.splitlines()[2:]] == [
        ["FLAG", "|", "set", "|", "any", "text"],
        ["PILOT", "|", "set", "|", "any", "text"],
        ["WEATHER", "|", "not", "set", "|", '"calm"', "|", '"half', "a", 'gale"'],
        ["SPARE", "|", "set", "|", "(the", "module", "does", "not", "read", "it)"],
    ]
    assert published(server, "pier", "--env", "FLAG=blue", "--remove-env", "*")[0] == 0
    _, out, _ = run("sql", "pier", "SELECT * FROM st_env", "--server", server.http)
    assert len(out.splitlines()) == 3
    code, said = published(server, "pier", "--remove-env", "FLAG")
    assert (code, "FLAG" in said) == (1, True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--env", "NO_SUCH_VARIABLE_HERE"], "no variable of that name"),
        (["--env", "9=x"], "a variable's name"),
        (["--remove-env", "a b"], "a variable's name"),
        (["--env-file", "/nowhere/x"], "cannot read /nowhere/x"),
    ],
)
def test_wrong_options_say_what_to_do(server: Server, options: list[str], told: str) -> None:
    code, said = published(server, "wrong", *options)
    assert code == 1
    assert told in said


def test_names_are_shown_to_the_owner_alone(server: Server) -> None:
    assert published(server, "mine", "--env", "FLAG=red")[0] == 0
    status, text = refused(server, "mine/environment")
    assert status == 403
    assert text.endswith(": view environment")
    assert refused(server, "nobodys/environment")[0] == 404
    config = Config(config_path(None))
    with Api(config, config.server(server.http)) as api:
        document = api.document("/v1/database/mine/environment")
    assert document["declarations"] == [
        {"name": "FLAG", "ty": "String", "optional": False},
        {"name": "PILOT", "ty": "String", "optional": True},
        {"name": "WEATHER", "ty": {"Union": ["calm", "half a gale"]}, "optional": True},
    ]
    assert document["stored_keys"] == ["FLAG"]
    assert document["module_hash"].startswith("0x")
    code, _, said = run("sql", "mine", "DELETE FROM st_env", "--server", server.http)
    assert code == 1
    assert "Database environment variables can only be changed by publishing" in said
    code, _, said = run("sql", "mine", "SELECT * FROM st_env", "--anonymous", "--server", server.http)
    assert code == 1
    assert "no such table: `st_env`" in said


def test_a_malformed_header_is_refused_before_anything_else(server: Server) -> None:
    request = urllib.request.Request(
        f"{server.http}/v1/database/x1", b"no program", {"spacetime-environment": "A"}, method="PUT"
    )
    with pytest.raises(HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400
    assert caught.value.read().startswith(b"malformed header spacetime-environment: ")
