"""What leaves of what the handlers of routes answer: sent whole as it is, or refused and told to the owner."""

import json
from typing import Any

import h11
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.modules.protocol import HttpResponse
from stdb.net.http import HttpConnection
from stdb.net.routes_user import HEADER_BYTES_MAX, HEADERS_MAX, _response
from stdb.net.stream import memory_stream_pair
from stdb.storage.settings import Settings
from tests.http_harness import Door
from tests.routes_shop import CORS, URL, run


@pytest.mark.parametrize(
    ("wanted", "status", "headers", "body"),
    [
        ({"status": 204, "body": "dropped"}, 204, {}, b""),
        ({"status": 304, "body": "dropped", "headers": {"ETag": "1"}}, 304, {"etag": "1"}, b""),
        ({"status": 404, "body": "mine"}, 404, {"content-length": "4"}, b"mine"),
        ({"status": 599}, 599, {"content-length": "0"}, b""),
        ({"headers": {"Content-Length": "3"}, "body": "abc"}, 200, {"content-length": "3"}, b"abc"),
        ({"headers": {"Date": "today"}}, 200, {"date": "today"}, b""),
        ({"headers": {"Vary": "cookie"}}, 200, {"vary": "cookie, " + CORS["vary"]}, b""),
        ({"headers": {"Access-Control-Allow-Origin": "http://a"}}, 200, CORS, b""),
        ({"headers": [["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"]]}, 200, {"set-cookie": "a=1, b=2"}, b""),
        ({"headers": {"X-A": "  padded\t"}}, 200, {"x-a": "padded"}, b""),
        ({"headers": {"X-A": ""}}, 200, {"x-a": ""}, b""),
        ({"headers": {"X-A": "é"}}, 200, {"x-a": "Ã©"}, b""),
    ],
)
def test_what_a_handler_answers_is_sent_as_it_is(
    wanted: dict[str, Any], status: int, headers: dict[str, str], body: bytes
) -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        answer = await client.request("POST", f"{URL}/answer", {}, json.dumps(wanted).encode())
        assert (answer.status, answer.body) == (status, body)
        assert headers.items() <= answer.headers.items()
        assert (await client.request("GET", f"{URL}/", {})).status == 200

    run(test)


def test_head_has_the_headers_and_no_body() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        wanted = json.dumps({"body": "never sent"}).encode()
        answer = await client.request("HEAD", f"{URL}/answer", {"Content-Length": str(len(wanted))}, wanted)
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "10")
        wanted = json.dumps({"headers": {"Content-Length": "5000000000"}}).encode()
        answer = await client.request("HEAD", f"{URL}/answer", {"Content-Length": str(len(wanted))}, wanted)
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "5000000000")
        assert (await client.request("GET", f"{URL}/", {})).status == 200

    run(test)


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        ({"headers": (("Connection", b"close"),)}, "its header Connection is about the connection"),
        ({"headers": (("transfer-encoding", b"chunked"),)}, "its header transfer-encoding is about the connection"),
        ({"headers": (("Upgrade", b"websocket"),)}, "its header Upgrade is about the connection"),
        ({"headers": (("content-length", b"5"),)}, "content-length is b'5', its body has 1 bytes"),
        ({"headers": (("content-length", b"-1"),)}, "content-length is b'-1'"),
        ({"headers": (("content-length", b"1"), ("Content-Length", b"1"))}, "the header content-length twice"),
        ({"headers": (("x", b"a\r\nset-cookie: b"),)}, "its header x is b'a\\r\\nset-cookie: b', not one line"),
        ({"headers": (("x\r\ny", b"a"),)}, "is one called 'x\\r\\ny', which is no name"),
        ({"headers": (("", b"a"),)}, "is one called '', which is no name"),
        ({"headers": (("x", b"\x00"),)}, "not one line of bytes"),
        ({"headers": (("x", b"\x7f"),)}, "not one line of bytes"),
        ({"headers": (("x", "text"),)}, "its header x is 'text', not one line of bytes"),
        ({"headers": ((1, b"a"),)}, "is one called 1, which is no name"),
        ({"headers": (("x",),)}, "is a tuple, not a pair"),
        ({"headers": {"x": b"y"}}, "its headers are a dict, not pairs"),
        ({"headers": None}, "its headers are None, not pairs"),
        ({"headers": (("x", b""),) * (HEADERS_MAX + 1)}, f"it has {HEADERS_MAX + 1} headers, more than {HEADERS_MAX}"),
        ({"headers": (("x", b"y" * HEADER_BYTES_MAX),)}, f"bytes, more than {HEADER_BYTES_MAX}"),
        ({"status": 101}, "its status is 101, not a number from 200 to 999"),
        ({"status": 1000}, "its status is 1000"),
        ({"status": "200"}, "its status is '200'"),
        ({"status": True}, "its status is True"),
        ({"status": None}, "its status is None"),
        ({"body": "text"}, "its body is 'text', not bytes"),
        ({"body": None}, "its body is None, not bytes"),
        ({"body": 10**400}, "its body is "),
    ],
)
def test_what_would_break_the_connection_is_500_and_told_to_the_owner(forged: dict[str, Any], why: str) -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        answer = await client.request("POST", f"{URL}/forge", {}, repr(forged).encode())
        text = "The handler of this route answered what cannot be sent; the module's log says why."
        assert (answer.status, answer.text) == (500, text)
        line = door.log("shop")[-1]
        assert (line["level"], line["function"]) == ("Error", "forge")
        assert line["message"].startswith("the answer of the handler forge to POST /forge was not sent: ")
        assert why in line["message"]
        assert (await client.request("GET", f"{URL}/", {})).status == 200

    run(test, settings=Settings())


def test_a_tunnel_is_not_opened() -> None:
    async def test(door: Door) -> None:
        client = door.connect()
        body = json.dumps({"status": 200}).encode()
        answer = await client.request("CONNECT", f"{URL}/answer", {"Content-Length": str(len(body))}, body)
        assert answer.status == 500
        assert "would open a tunnel" in door.log("shop")[-1]["message"]
        body = json.dumps({"status": 405, "body": "no"}).encode()
        answer = await door.send("CONNECT", f"{URL}/answer", {"Content-Length": str(len(body))}, body)
        assert (answer.status, answer.text) == (405, "no")

    run(test)


VALUES = st.one_of(st.binary(max_size=6), st.text(max_size=4), st.none(), st.integers())
NAMES = st.one_of(
    st.sampled_from(["content-length", "date", "x", "Connection", "set-cookie"]), st.text(max_size=4), VALUES
)


@settings(max_examples=400, deadline=None)
@given(
    status=st.one_of(st.integers(190, 1010), st.none(), st.booleans()),
    headers=st.one_of(st.lists(st.tuples(NAMES, VALUES), max_size=4), VALUES),
    body=st.one_of(st.binary(max_size=20), VALUES),
    method=st.sampled_from(["GET", "HEAD", "CONNECT", "BREW"]),
)
def test_whatever_is_not_refused_goes_over_the_wire_whole(status: Any, headers: Any, body: Any, method: str) -> None:
    try:
        response = _response(HttpResponse(status, headers, body), method)
    except ValueError:
        return

    async def main() -> None:
        near, far = memory_stream_pair()
        connection, client = HttpConnection(far), h11.Connection(h11.CLIENT)
        request = h11.Request(method=method, target="/", headers=[("host", "a")])
        data = (client.send(request) or b"") + (client.send(h11.EndOfMessage()) or b"")
        near.send_nowait(data)
        assert await connection.next_request() is not None
        await connection.send(response, is_head=method == "HEAD")
        assert await connection.finish()
        client.receive_data(await near.receive_some())
        head = client.next_event()
        assert isinstance(head, h11.Response)
        received = b""
        while isinstance(event := client.next_event(), h11.Data):
            received += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert head.status_code == status
        assert received == (b"" if method == "HEAD" or status in (204, 304) else body)
        sent = [(name.encode(), value) for name, value in response.headers]
        assert [each for each in head.headers if each in sent] == sent

    trio.run(main)
