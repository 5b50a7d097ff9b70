"""How a procedure ended, byte by byte in every dialect (spec 02 sections 5 to 8)."""

from collections.abc import Callable

import pytest

from stdb.actors.requests import CallProcedure
from stdb.actors.sink import ProcedureResult
from stdb.net.protocols.dialect import ConnectionOptions
from stdb.net.protocols.wire import Compression
from tests.websocket_messages import Spoken

CALL = CallProcedure(0x4D, "p", b"")
RESULT = ProcedureResult(b"\3\0\0\0", lambda: "3", 1_700_000_000_000_000, 1141)
BEGAN = (1_700_000_000_000_000).to_bytes(8, "little")
TOOK = (1141).to_bytes(8, "little")
ID = b"\x4d\0\0\0"
TEXT = "no ☃"
BUDGET = b"Procedure terminated due to insufficient budget"
JSON_END = (
    ',"timestamp":{"__timestamp_micros_since_unix_epoch__":%d}'
    ',"total_host_execution_duration":{"__time_duration_micros__":%d},"request_id":77}}'
)


def said(protocol: str, tell: Callable[[Spoken], None], *, durable: int = 1 << 62, confirmed: bool = False) -> bytes:
    spoken = Spoken(protocol, ConnectionOptions(compression=Compression.NONE, confirmed=confirmed))
    tell(spoken)
    return b"".join(spoken.payloads() if durable > 1 << 61 else [each for _, each in spoken.frames(durable)])


def size(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little")


@pytest.mark.parametrize(("protocol", "tag"), [("v1.bsatn", 10), ("v2.bsatn", 7), ("v3.bsatn", 7)])
def test_what_was_returned_in_the_binary_dialects(protocol: str, tag: int) -> None:
    payload = said(protocol, lambda spoken: spoken.sink.procedure_result(CALL, RESULT, 0))
    assert payload == bytes((0, tag, 0)) + b"\4\0\0\0\3\0\0\0" + BEGAN + TOOK + ID


@pytest.mark.parametrize(("protocol", "tag", "status"), [("v1.bsatn", 10, 2), ("v2.bsatn", 7, 1), ("v3.bsatn", 7, 1)])
def test_an_error_has_no_times(protocol: str, tag: int, status: int) -> None:
    payload = said(protocol, lambda spoken: spoken.sink.procedure_error(CALL, TEXT))
    text = TEXT.encode()
    assert payload == bytes((0, tag, status)) + size(text) + text + bytes(16) + ID


def test_the_time_limit_is_a_status_of_its_own_in_v1_and_a_text_from_v2_on() -> None:
    def tell(spoken: Spoken) -> None:
        spoken.sink.procedure_out_of_time(CALL)

    assert said("v1.bsatn", tell) == b"\0\x0a\1" + bytes(16) + ID
    for protocol in ("v2.bsatn", "v3.bsatn"):
        assert said(protocol, tell) == b"\0\x07\1" + size(BUDGET) + BUDGET + bytes(16) + ID
    assert said("v1.json", tell).decode() == '{"ProcedureResult":{"status":{"OutOfEnergy":[]}' + JSON_END % (0, 0)


def test_v1_json_holds_the_result_as_a_text_of_json() -> None:
    returned = ProcedureResult(b"", lambda: '{"a":"\\"☃"}', 5, 6)
    text = said("v1.json", lambda spoken: spoken.sink.procedure_result(CALL, returned, 0)).decode()
    assert text == '{"ProcedureResult":{"status":{"Returned":"{\\"a\\":\\"\\\\\\"☃\\"}"}' + JSON_END % (5, 6)
    error = said("v1.json", lambda spoken: spoken.sink.procedure_error(CALL, 'no "☃"\n')).decode()
    assert error == '{"ProcedureResult":{"status":{"InternalError":"no \\"☃\\"\\n"}' + JSON_END % (0, 0)


@pytest.mark.parametrize("protocol", ["v1.bsatn", "v1.json", "v2.bsatn", "v3.bsatn"])
def test_a_result_waits_for_what_it_reflects_where_its_client_is_confirmed(protocol: str) -> None:
    def tell(spoken: Spoken) -> None:
        spoken.sink.procedure_result(CALL, RESULT, 7)

    assert said(protocol, tell, durable=6, confirmed=True) == b""
    assert said(protocol, tell, durable=7, confirmed=True) != b""
    assert said(protocol, tell, durable=6, confirmed=False) != b""


@pytest.mark.parametrize("protocol", ["v1.bsatn", "v1.json", "v2.bsatn", "v3.bsatn"])
def test_an_error_stands_behind_results_that_wait(protocol: str) -> None:
    def tell(spoken: Spoken) -> None:
        spoken.sink.procedure_result(CALL, RESULT, 7)
        spoken.sink.procedure_error(CALL, TEXT)
        spoken.sink.procedure_out_of_time(CALL)

    assert said(protocol, tell, durable=6, confirmed=True) == b""
    parts = (
        said(protocol, lambda spoken: spoken.sink.procedure_result(CALL, RESULT, 0)),
        said(protocol, lambda spoken: spoken.sink.procedure_error(CALL, TEXT)),
        said(protocol, lambda spoken: spoken.sink.procedure_out_of_time(CALL)),
    )
    assert said(protocol, tell, durable=7, confirmed=True) == b"".join(parts)
