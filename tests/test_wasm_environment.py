"""What ABI 10.6 and crates 2.11 to 2.14 brought: environment variables, arguments of views, who asks a handler."""

from collections.abc import Callable
from dataclasses import replace
from struct import pack

import pytest
import trio

from stdb.actors.refusals import PublishFailed
from stdb.actors.sink import Client
from stdb.datastore.environment import write_environment
from stdb.errors import ModuleFault, QueryError, ReducerError
from stdb.modules.environment import Environment
from stdb.modules.protocol import HttpRequest, HttpResponse, ReadSet, ReducerCall, RouteCall, Stranger, ViewCall
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.http import encode_response
from stdb.modules.wasm.loader import load_wasm
from stdb.modules.wasm.runtime import EXHAUSTED, GuestTrap, Runtime
from stdb.sats.types import IDENTITY as SPECIAL_IDENTITY
from stdb.sats.types import STRING, U32, U64, UNIT, Array, Element, Product, Ref, Typespace
from stdb.schema import raw
from stdb.schema.environment import VALUES_MAX, EnvironmentChange
from stdb.schema.model import IndexAlgorithm
from stdb.schema.system_tables import ENVIRONMENT_TABLE_ID
from stdb.testing.hosts import identity, open_host
from tests.test_wasm_module import HostOf, World, finish
from tests.wasm_guests import IDENTITY, KEY, NOW_US, OUT, ROOM, RUNTIMES, Probe, module_text, wat

KEYED = Product((Element("key", STRING),))
VARIABLES = (
    raw.RawEnvironmentVariable("A", None, False),
    raw.RawEnvironmentVariable("B", None, True),
    raw.RawEnvironmentVariable("C", ("x", "y"), True),
)
DEFINITION = raw.encode(
    raw.RawModuleDefV10(
        typespace=Typespace((Product((Element("text", STRING),)),)),
        types=(raw.RawTypeDef(raw.RawTypeName("Row"), 0),),
        reducers=(raw.RawReducerV10("tell", KEYED),),
        views=(
            raw.RawViewV10("shown", 0, True, True, KEYED, Array(Ref(0))),
            raw.RawViewV10("echo", 1, True, True, Product((Element("a", STRING), Element("b", U32))), Array(Ref(0))),
        ),
        http_handlers=(raw.RawHttpHandler("who"),),
        http_routes=(raw.RawHttpRoute("who", "Get", "/who"),),
        environment=VARIABLES,
    )
)
IMPORTS = """
  (import "spacetime_10.0" "bytes_source_read" (func $read (param i32 i32 i32) (result i32)))
  (import "spacetime_10.6" "env_get" (func $env_get (param i32 i32 i32) (result i32)))"""
# $env: a key as BSATN from a source; its value as BSATN at 81000, or nothing; returns how many bytes these are.
MORE = """
  (func $say (param $sink i32) (param $at i32) (param $size i32)
    (i32.store (i32.const 32) (local.get $size))
    (drop (call $write (local.get $sink) (local.get $at) (i32.const 32))))
  (func $take (param $source i32) (param $at i32) (result i32)
    (i32.store (i32.const 40) (i32.const 9000))
    (if (i32.ne (call $read (local.get $source) (local.get $at) (i32.const 40)) (i32.const -1)) (then unreachable))
    (i32.load (i32.const 40)))
  (func $env (param $source i32) (result i32)
    (drop (call $take (local.get $source) (i32.const 80000)))
    (if (call $env_get (i32.const 80004) (i32.load (i32.const 80000)) (i32.const 64)) (then unreachable))
    (if (i32.eqz (i32.load (i32.const 64))) (then (return (i32.const 0))))
    (i32.store (i32.const 81000) (call $take (i32.load (i32.const 64)) (i32.const 81004)))
    (i32.add (i32.load (i32.const 81000)) (i32.const 4)))
  (func (export "__call_view_anon__") (param $view i32) (param $args i32) (param $sink i32) (result i32)
    (i32.store (i32.const 80900) (i32.const 1))
    (if (local.get $view)
      (then
        (call $say (local.get $sink) (i32.const 80900) (i32.const 4))
        (i32.store (i32.const 81000) (call $take (local.get $args) (i32.const 81004)))
        (call $say (local.get $sink) (i32.const 81000) (i32.add (i32.load (i32.const 81000)) (i32.const 4))))
      (else
        (drop (call $env (local.get $args)))
        (if (i32.eqz (i32.load (i32.const 64))) (then (i32.store (i32.const 80900) (i32.const 0))))
        (call $say (local.get $sink) (i32.const 80900) (i32.const 4))
        (if (i32.load (i32.const 64))
          (then (call $say (local.get $sink) (i32.const 81000) (i32.add (i32.load (i32.const 81000)) (i32.const 4)))))))
    i32.const 0)"""
TELL = """(local $size i32) (local.set $size (call $env (local.get 8)))
  (if (local.get $size) (then (call $say (local.get 9) (i32.const 81000) (local.get $size)))) i32.const 1"""


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Return one of the runtimes."""
    made: Runtime = RUNTIMES[request.param](engine())
    return made


class Place(World):
    """A module of this definition attached to a database with these variables."""

    def __init__(self, runtime: Runtime, more: str = "", **values: str) -> None:
        super().__init__(wat(module_text(TELL, MORE + more, IMPORTS, DEFINITION)), runtime)
        transaction = self.datastore.begin(NOW_US)
        self._store_program(self.module.program_hash)
        write_environment(self.datastore, values)
        transaction.commit()

    def _store_program(self, program_hash: bytes) -> None:
        table = self.datastore.table("st_module")
        table.clear()
        table.insert(table.schema.codec.encode((0, 0, 0, int.from_bytes(program_hash, "little"), b"", "")))

    def replace_program(self) -> None:
        """Let the database run another program."""
        transaction = self.datastore.begin(NOW_US)
        self._store_program(bytes(32))
        transaction.commit()

    def tell(self, key: str) -> str | None:
        """Return what the reducer reads; None where nothing is there."""
        transaction = self.datastore.begin(NOW_US)
        data = key.encode()
        try:
            with pytest.raises(ReducerError) as caught:
                self.run(ReducerCall(IDENTITY, None, NOW_US, transaction), pack("<I", len(data)) + data)
        finally:
            transaction.rollback()
        text = str(caught.value)
        return text[4:] if text else None

    def shown(self, key: str) -> tuple[list[bytes], ReadSet]:
        """Return the rows of the view, and what it read."""
        data, reads = key.encode(), ReadSet()
        rows = self.module.view(0)(ViewCall(None, pack("<I", len(data)) + data, reads))
        assert isinstance(rows, list)
        return rows, reads


def test_a_reducer_reads_what_is_set(runtime: Runtime) -> None:
    place = Place(runtime, A="grün", C="y")
    assert place.tell("A") == "grün"
    assert place.tell("B") is None
    assert place.tell("C") == "y"


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("D", 'environment key "D" is not declared by this module'),
        ("A", 'environment key "A": required value is missing'),
    ],
)
def test_a_key_that_cannot_be_read_traps(runtime: Runtime, key: str, told: str) -> None:
    place = Place(runtime)
    with pytest.raises(ModuleFault) as caught:
        place.tell(key)
    assert told in (caught.value.report or "")
    assert place.tell("B") is None  # by a new instance


def test_another_programs_environment_is_not_read(runtime: Runtime) -> None:
    place = Place(runtime, A="1")
    assert place.tell("A") == "1"
    place.replace_program()
    with pytest.raises(ModuleFault) as caught:
        place.tell("A")
    assert "the database was updated while this ran" in (caught.value.report or "")


def test_a_view_depends_on_what_it_read_also_where_nothing_was(runtime: Runtime) -> None:
    place = Place(runtime, A="1")
    index = place.datastore.tables[ENVIRONMENT_TABLE_ID].indexes[0]
    for key, rows in (("A", [b"\1\0\0\0" + b"1"]), ("B", [])):
        got, reads = place.shown(key)
        assert got == rows
        assert reads.keys == {(ENVIRONMENT_TABLE_ID, index.id): {key}}
        assert not reads.tables


def test_a_view_is_given_its_arguments(runtime: Runtime) -> None:
    args = pack("<I", 2) + b"hi" + pack("<I", 7)
    rows = Place(runtime).module.view(1)(ViewCall(None, args, ReadSet()))
    assert rows == [pack("<I", len(args)) + args]


def probe_of(runtime: Runtime, **values: str) -> Probe:
    """Return the host's functions over a database with these variables."""
    probe = Probe(runtime)
    transaction = probe.datastore.begin(NOW_US)
    write_environment(probe.datastore, values)
    transaction.commit()
    definition = load_wasm(
        wat(module_text(TELL, MORE, IMPORTS, DEFINITION)), lambda: NOW_US, runtime=runtime
    ).definition
    probe.host.environment = Environment(definition, bytes(32), probe.datastore)
    probe.host.function = "run"
    return probe


def get(probe: Probe, key: bytes) -> int:
    return probe.call("env_get", *probe.put(KEY, key), OUT)


def test_a_value_is_read_once_through_a_source(runtime: Runtime) -> None:
    probe = probe_of(runtime, A="", B="b")
    with probe.transaction():
        assert get(probe, b"A") == 0
        empty = probe.number()
        assert empty != 0
        probe.put(OUT, pack("<I", 8))
        assert probe.call("bytes_source_read", empty, ROOM, OUT) == EXHAUSTED
        assert probe.number() == 0
        assert get(probe, b"C") == 0
        assert probe.number() == 0
        assert get(probe, b"B") == 0
        source = probe.number()
        probe.put(OUT, pack("<I", 8))
        assert probe.call("bytes_source_read", source, ROOM, OUT) == EXHAUSTED
        assert probe.guest.memory.read(ROOM, probe.number()) == b"b"
        assert probe.call("bytes_source_read", source, ROOM, OUT) == 8


def test_the_error_numbers(runtime: Runtime) -> None:
    probe = probe_of(runtime, A="a")
    assert get(probe, b"A") == 2  # no transaction
    with probe.transaction():
        for key in (b"", b"1", b"a-b", "ä".encode(), b"A" * 257):
            assert get(probe, key) == 1
        for _ in range(VALUES_MAX):
            assert get(probe, b"A") == 0
        assert get(probe, b"A") == 9
        assert probe.number() == 0
    probe.host.handles.end_call()
    probe.host.is_procedure = True
    assert get(probe, b"A") == 0  # a snapshot of its own
    assert probe.number() != 0


def test_where_the_environment_is_not_read_at_all(runtime: Runtime) -> None:
    probe = probe_of(runtime, A="a")
    with probe.transaction():
        for function, key, told in (
            (None, b"A", "not while a module is prepared"),
            ("lib.run", b"A", "only the root module reads the environment"),
            ("run", b"\xff", "not valid UTF-8"),
        ):
            probe.host.function = function
            with pytest.raises(GuestTrap) as caught:
                get(probe, key)
            assert told in str(caught.value)
        for place in ((0, 1, OUT), (KEY, 1, 0), (KEY, 1, 1 << 30), (1 << 30, 1, OUT)):
            with pytest.raises(GuestTrap):
                probe.call("env_get", *place)


def test_the_table_of_values_is_none_of_a_guests(runtime: Runtime) -> None:
    probe = probe_of(runtime, A="a")
    with probe.transaction():
        assert probe.call("table_id_from_name", *probe.put(KEY, b"st_env"), OUT) == 4
        assert probe.call("index_id_from_name", *probe.put(KEY, b"st_env_key_idx_btree"), OUT) == 5
        assert probe.call("datastore_table_row_count", 21, OUT) == 4
        assert probe.call("datastore_table_scan_bsatn", 21, OUT) == 4
        assert probe.insert(21, b"\1\0\0\0B\1\0\0\0b")[0] == 4
        assert probe.call("datastore_clear", 21, OUT) == 4
        key = b"\1\0\0\0A"
        assert probe.point(30, key) == 4
        assert probe.range(30, b"", 0, b"\2", b"\2") == 4
        assert probe.call("datastore_delete_by_index_scan_point_bsatn", 30, *probe.put(KEY, key), OUT) == 4


# Handlers

ANSWER = "".join(f"\\{byte:02x}" for byte in encode_response(HttpResponse(207)))
ANSWER_SIZE = len(encode_response(HttpResponse(207)))
BEFORE = f"""(data (i32.const 82000) "{ANSWER}")
  (func (export "__call_http_handler__")
      (param $id i32) (param $time i64) (param $request i32) (param $body i32) (param $head i32) (param $out i32)
      (result i32)
    (i64.store (i32.const 83000) (local.get $time))
    (call $say (local.get $head) (i32.const 82000) (i32.const {ANSWER_SIZE}))
    (call $say (local.get $out) (i32.const 83000) (i32.const 8)) i32.const 0)"""
SINCE = f"""(data (i32.const 82000) "{ANSWER}")
  (func (export "__call_http_handler__")
      (param $id i32) (param $a i64) (param $b i64) (param $c i64) (param $d i64) (param $claims i32)
      (param $time i64) (param $request i32) (param $body i32) (param $head i32) (param $out i32)
      (result i32)
    (i64.store (i32.const 83000) (local.get $a)) (i64.store (i32.const 83008) (local.get $b))
    (i64.store (i32.const 83016) (local.get $c)) (i64.store (i32.const 83024) (local.get $d))
    (call $say (local.get $head) (i32.const 82000) (i32.const {ANSWER_SIZE}))
    (call $say (local.get $out) (i32.const 83000) (i32.const 32))
    (call $say (local.get $out) (i32.const 84000) (call $take (local.get $claims) (i32.const 84000)))
    i32.const 0)"""


def asked(place: Place, stranger: Callable[[], Stranger]) -> HttpResponse:
    call = RouteCall(NOW_US, HostOf(place), stranger)
    return finish(place.module.route(0)(call, HttpRequest("GET", "http://here/who")))


def test_a_handler_of_the_older_form_is_told_of_nobody(runtime: Runtime) -> None:
    def nobody() -> Stranger:
        raise AssertionError("nobody is asked for")

    assert asked(Place(runtime, BEFORE), nobody) == HttpResponse(207, (), NOW_US.to_bytes(8, "little"))


def test_a_handler_of_the_newer_form_is_told_who_asks(runtime: Runtime) -> None:
    who = bytes(range(32))
    response = asked(Place(runtime, SINCE), lambda: Stranger(who, '{"iss":"me"}'))
    assert response == HttpResponse(207, (), who + b'{"iss":"me"}')


def test_a_handler_of_any_other_form_refuses_the_program(runtime: Runtime) -> None:
    for wrong in (
        '(func (export "__call_http_handler__") (param i32) (result i32) i32.const 0)',
        '(global (export "__call_http_handler__") i32 (i32.const 0))',
    ):
        with pytest.raises(ModuleFault, match="__call_http_handler__"):
            Place(runtime, wrong)


def test_an_import_that_the_abi_does_not_have_is_named(runtime: Runtime) -> None:
    for module, name in (("10.6", "env_set"), ("10.5", "env_get")):
        imports = f'(import "spacetime_{module}" "{name}" (func (param i32 i32 i32) (result i32)))'
        with pytest.raises(ModuleFault, match=f"unknown import: `spacetime_{module}::{name}` has not been defined"):
            load_wasm(wat(module_text(imports=imports)), lambda: NOW_US, runtime=runtime)
    with pytest.raises(ModuleFault, match=r"abi version 10\.7 is not supported \(host implements 10\.6\)"):
        load_wasm(wat(module_text(imports='(import "spacetime_10.7" "x" (func))')), lambda: NOW_US, runtime=runtime)


# In a database

OWNER = identity(99)
OUTBOX = raw.RawModuleDefV10(
    typespace=Typespace((Product((Element("id", U64), Element("who", SPECIAL_IDENTITY))),)),
    types=(raw.RawTypeDef(raw.RawTypeName("Sent"), 0),),
    tables=(
        raw.RawTableV10(
            "sent",
            0,
            (0,),
            (raw.RawIndex("sent_id", None, IndexAlgorithm.BTREE, (0,)),),
            (raw.RawConstraint(None, (0,)),),
        ),
    ),
    outboxes=(raw.RawOutbox("sent", "receive", 1, (), None, bytes(32)),),
)


@pytest.mark.parametrize("signature", [bytes(range(32)), "00ff"], ids=["2.14", "2.12"])
@pytest.mark.parametrize("is_below", [False, True])
def test_outboxes_are_refused_with_what_to_do(signature: bytes | str, is_below: bool) -> None:
    definition = replace(OUTBOX, outboxes=(replace(OUTBOX.outboxes[0], signature_hash=signature),))
    if is_below:
        definition = raw.RawModuleDefV10(submodules=(raw.RawSubmodule("lib", definition),))
    program = wat(module_text(definition=raw.encode(definition)))

    async def main() -> None:
        async with open_host({program: lambda: load_wasm(program, lambda: NOW_US)}) as host:
            with pytest.raises(PublishFailed) as caught:
                await host.publish(OWNER, program, name="sender", host_type="Wasm")
            assert str(caught.value) == (
                "table `sent` is an outbox of calls to reducer `receive` of other databases, and this server sends no "
                "calls between databases: publish the module without outboxes"
            )
            assert host.control.resolve("sender") is None

    trio.run(main)


PEEKING = "SELECT * FROM st_env"
PEEK = f"""(data (i32.const 80000) "\\01\\{len(PEEKING):02x}\\00\\00\\00{PEEKING}")
  (func (export "__call_view_anon__") (param $view i32) (param $args i32) (param $sink i32) (result i32)
    (i32.store (i32.const 32) (i32.const {len(PEEKING) + 5}))
    (drop (call $write (local.get $sink) (i32.const 80000) (i32.const 32))) i32.const 2)"""


def test_a_view_whose_query_reads_the_table_of_values_fails() -> None:
    definition = raw.RawModuleDefV10(
        typespace=Typespace((Product((Element("key", STRING), Element("value", STRING))),)),
        types=(raw.RawTypeDef(raw.RawTypeName("Variable"), 0),),
        views=(raw.RawViewV10("peek", 0, True, True, UNIT, Array(Ref(0))),),
        environment=(raw.RawEnvironmentVariable("A", None, True),),
    )
    program = wat(module_text(more=PEEK, definition=raw.encode(definition)))

    async def main() -> None:
        async with open_host({program: lambda: load_wasm(program, lambda: NOW_US)}) as host:
            change = EnvironmentChange({"A": "secret"})
            made = await host.publish(OWNER, program, host_type="Wasm", environment=change)
            handle = host.database(made.identity)
            owner = Client(OWNER, bytes(16), "")
            with pytest.raises(QueryError, match="the query of view `peek` reads st_env"):
                await handle.sql(owner, "SELECT * FROM peek")
            assert (await handle.sql(owner, "SELECT * FROM st_env")).rows

    trio.run(main)
