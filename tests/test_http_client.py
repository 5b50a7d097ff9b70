"""Requests of modules to other servers: what is sent, where it may go, what a server may answer."""

import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import h11
import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import HttpError, StorageError
from stdb.modules.protocol import HttpRequest, HttpResponse
from stdb.net import http_client
from stdb.net.addresses import Networks, SocketAddress, is_public, literal
from stdb.net.http_client import HEAD_BYTES_MAX, HEAD_LINES_MAX, INTERIM_MAX, REDIRECTS_MAX, HttpClient
from stdb.net.http_target import Ask, ask_of
from stdb.storage.settings import ModuleHttp, parse_settings

LOOPBACK = ("127.0.0.0/8", "::1/128")
REFUSAL = "refusing to connect to private or special-purpose addresses"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"

Handler = Callable[["Wire"], Awaitable[None]]


class Wire:
    """One connection as a test's server sees it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def head(self) -> str:
        """Return the head of the request; what came of its body is lost."""
        received = b""
        while b"\r\n\r\n" not in received:
            more = await self.stream.receive_some(65536)
            assert more, received
            received += bytes(more)
        return received.decode("latin-1")

    async def answer(self, data: bytes) -> str:
        """Read a request, send this, and return the request."""
        head = await self.head()
        await self.stream.send_all(data)
        return head

    async def wait_closed(self) -> None:
        """Return once the client has closed."""
        try:
            while await self.stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            return


class Server:
    """A server that keeps what it was asked."""

    def __init__(self, port: int, scheme: str = "http") -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.port = port
        self.heads: list[str] = []
        self.closed = trio.Event()
        """A client has closed its connection."""


@asynccontextmanager
async def serving(handler: Handler | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a server: bytes are answered to every request, then the connection is closed."""
    server: list[Server] = []

    async def serve(plain: trio.SocketStream) -> None:
        stream: trio.abc.Stream = plain if tls is None else trio.SSLStream(plain, tls, server_side=True)
        wire = Wire(stream)
        try:
            if isinstance(handler, bytes):
                server[0].heads.append(await wire.answer(handler))
            else:
                await handler(wire)
            if tls is None:
                await wire.wait_closed()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        server[0].closed.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        server.append(Server(listeners[0].socket.getsockname()[1], "http" if tls is None else "https"))
        yield server[0]
        nursery.cancel_scope.cancel()


def client(**options: Any) -> HttpClient:
    """Return a client that may ask this machine."""
    own = {name: options.pop(name) for name in ("resolve", "tls") if name in options}
    return HttpClient(ModuleHttp(**{"allowed_networks": LOOPBACK, **options}), **own)


def resolver(*addresses: str, asked: list[str] | None = None) -> Any:
    """Return a resolver for which every name leads to these addresses."""

    async def resolve(host: str, port: int) -> Sequence[SocketAddress]:
        if asked is not None:
            asked.append(host)
        return [
            SocketAddress(socket.AF_INET6, (text, port, 0, 0))
            if ":" in text
            else SocketAddress(socket.AF_INET, (text, port))
            for text in addresses
        ]

    return resolve


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(10):
            await test()

    trio.run(main)


async def refusal(sender: HttpClient, url: str, method: str = "GET", **request: Any) -> str:
    """Return why a request has no response."""
    with pytest.raises(HttpError) as failed:
        await sender.send(HttpRequest(method, url, **request))
    return str(failed.value)


def answered(data: bytes | Handler, method: str = "GET", **options: Any) -> HttpResponse:
    """Return what a request to a server that answers this gets."""
    results = []

    async def test() -> None:
        async with serving(data) as server:
            results.append(await client(**options).send(HttpRequest(method, server.url + "/")))

    run(test)
    return results[0]


def broken(data: bytes | Handler, **options: Any) -> str:
    """Return why a server that answers this has not answered; the URL is left out."""
    results = []

    async def test() -> None:
        async with serving(data) as server:
            text = await refusal(client(**options), server.url + "/")
            results.append(text.replace(server.url, "URL"))
            await server.closed.wait()

    run(test)
    return results[0]


# ---------------------------------------------------------------------- what is sent
def test_a_request_goes_out_as_written_and_the_response_comes_back() -> None:
    async def test() -> None:
        data = b"HTTP/1.1 404 Nope\r\nX-One: 1\r\nx-one: 2\r\ncontent-length: 3\r\n\r\n\x00\xffz"
        async with serving(data) as server:
            request = HttpRequest(
                "POST", server.url + "/a b?q=ü#part", (("X-Own", b" \xc3\xa4 "), ("x-own", b"2")), b"body"
            )
            assert await client().send(request) == HttpResponse(
                404, (("x-one", b"1"), ("x-one", b"2"), ("content-length", b"3")), b"\x00\xffz"
            )
            line, *lines = server.heads[0].removesuffix("\r\n\r\nbody").split("\r\n")
            assert line == "POST /a%20b?q=%C3%BC HTTP/1.1"
            assert lines == [
                f"Host: 127.0.0.1:{server.port}",
                "X-Own: \xc3\xa4",
                "x-own: 2",
                "user-agent: stdb",
                "accept: */*",
                "accept-encoding: identity",
                "content-length: 4",
                "connection: close",
            ]

    run(test)


def test_an_author_decides_about_the_headers_that_have_defaults() -> None:
    async def test() -> None:
        async with serving(OK) as server:
            names = ("Host", "User-Agent", "ACCEPT", "accept-encoding")
            await client().send(HttpRequest("GET", server.url, tuple((name, b"mine") for name in names)))
            assert server.heads[0].lower().count(": mine\r\n") == 4
            assert server.heads[0].lower().split("\r\n")[1:] == [
                "host: mine",
                "user-agent: mine",
                "accept: mine",
                "accept-encoding: mine",
                "connection: close",
                "",
                "",
            ]

    run(test)


def test_name_and_password_of_a_url_become_a_header_and_are_never_told() -> None:
    async def test() -> None:
        async with serving(OK) as server:
            await client().send(HttpRequest("GET", server.url.replace("//", "//me:p%40ss@")))
            assert "\r\nauthorization: Basic bWU6cEBzcw==\r\n" in server.heads[0]
            assert server.heads[0].startswith("GET / HTTP/1.1\r\nHost: 127.0.0.1")
        assert "p%40ss" not in await refusal(client(), "http://me:p%40ss@127.0.0.1:1/")
        assert "p%40ss" not in await refusal(client(), "ftp://me:p%40ss@x/")

    run(test)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("Transfer-Encoding", b"chunked", "the header transfer-encoding is the server's own to send"),
        ("connection", b"keep-alive", "the header connection is the server's own to send"),
        ("Upgrade", b"websocket", "the header upgrade is the server's own to send"),
        ("expect", b"100-continue", "the header expect is the server's own to send"),
        ("content-length", b"7", "content-length is 7, the body has 4 bytes"),
        ("a b", b"x", "'a b' is no header, or its value is none"),
        ("", b"x", "'' is no header, or its value is none"),
        ("ä", b"x", "'ä' is no header, or its value is none"),
        ("a", b"x\r\nb: y", "'a' is no header, or its value is none"),
        ("a", b"\x00", "'a' is no header, or its value is none"),
    ],
)
def test_a_header_that_would_change_the_message_is_refused(name: str, value: bytes, reason: str) -> None:
    async def test() -> None:
        text = await refusal(client(), "http://127.0.0.1:1/", "POST", headers=((name, value),), body=b"body")
        assert text == f"builder error for url (http://127.0.0.1:1/): {reason}"

    run(test)


def test_two_hosts_in_one_request_are_refused() -> None:
    async def test() -> None:
        text = await refusal(client(), "http://127.0.0.1:1/", headers=(("host", b"a"), ("Host", b"b")))
        assert text.endswith("there is more than one header host")

    run(test)


@pytest.mark.parametrize("method", ["CONNECT", "", "GET /", "GET\r\n", "x" * 65, "ä"])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    async def test() -> None:
        assert "is not sent" in await refusal(client(), "http://127.0.0.1:1/", method)

    run(test)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "Own"])
def test_every_other_method_is_sent(method: str) -> None:
    body = b"" if method == "HEAD" else b"hi"
    assert answered(OK, method) == HttpResponse(200, (("content-length", b"2"),), body)


def test_a_body_beyond_the_limit_is_not_sent() -> None:
    async def test() -> None:
        sender = client(request_bytes_max=3)
        text = await refusal(sender, "http://127.0.0.1:1/", "POST", body=b"four")
        assert text == (
            "error sending request for url (http://127.0.0.1:1/): "
            "the body has 4 bytes, this server sends at most 3 (request-bytes-max)"
        )

    run(test)


def test_a_head_beyond_the_limit_is_not_sent() -> None:
    async def test() -> None:
        headers = (("a", b"x" * HEAD_BYTES_MAX),)
        assert "URL and headers have" in await refusal(client(), "http://127.0.0.1:1/", headers=headers)

    run(test)


def test_nothing_is_sent_where_it_is_switched_off() -> None:
    async def test() -> None:
        text = await refusal(client(enabled=False), "http://127.0.0.1:1/")
        assert text == "this server sends no HTTP requests of modules: `enabled` of `[module-http]` is off"

    run(test)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert answered(OK).body == b"hi"


def test_the_settings_say_what_may_be_asked() -> None:
    text = """
    [module-http]
    enabled = false
    allowed-networks = ["10.1.0.0/16", "fd00::/8"]
    request-bytes-max = 1
    response-bytes-max = 2
    """
    assert parse_settings(text, "config.toml").module_http == ModuleHttp(False, ("10.1.0.0/16", "fd00::/8"), 1, 2)
    assert parse_settings("", "config.toml").module_http == ModuleHttp(enabled=True, allowed_networks=())


@pytest.mark.parametrize(
    "line",
    ["allowed-networks = ['all']", "allowed-networks = ['10.0.0.1/8']", "enabled = 1", "response-bytes-max = -1"],
)
def test_wrong_settings_stop_the_start(line: str) -> None:
    with pytest.raises(StorageError, match=r"invalid TOML syntax in config\.toml: "):
        parse_settings(f"[module-http]\n{line}", "config.toml")


# ---------------------------------------------------------------------- which URLs
@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "empty string"),
        ("/x", "builder error: relative URL without a base"),
        ("x", "builder error: relative URL without a base"),
        ("//x/y", "builder error: relative URL without a base"),
        ("ftp://x/", "builder error for url (ftp://x/): URL scheme is not allowed"),
        ("file:///etc/passwd", "builder error for url (file:///etc/passwd): URL scheme is not allowed"),
        ("gopher://x:70/", "builder error for url (gopher://x:70/): URL scheme is not allowed"),
        ("http:///x", "builder error for url (http:///x): empty host"),
        ("http://x:0/", "builder error for url (http://x:0/): invalid port number"),
        ("http://x:65536/", "builder error for url (http://x:65536/): invalid port number"),
        ("http://a..b/", "builder error for url (http://a..b/): invalid international domain name"),
        ("http://a%2eb/", "builder error for url (http://a%2eb/): invalid international domain name"),
        ("http://" + "a" * 64 + "/", "invalid international domain name"),
        ("http://[fe80::1%25eth0]/", "builder error for url (http://[fe80::1%25eth0]/): invalid international"),
    ],
)
def test_a_url_that_cannot_be_asked_is_refused_with_the_reference_s_text(url: str, text: str) -> None:
    async def test() -> None:
        assert text in await refusal(client(resolve=resolver("127.0.0.1")), url)

    run(test)


def test_a_name_in_any_script_is_asked_for_in_ascii() -> None:
    async def test() -> None:
        asked: list[str] = []
        async with serving(OK) as server:
            sender = client(resolve=resolver("127.0.0.1", asked=asked))
            await sender.send(HttpRequest("GET", f"http://BÜCHER.example:{server.port}/"))
            assert asked == ["xn--bcher-kva.example"]
            assert f"\r\nHost: xn--bcher-kva.example:{server.port}\r\n" in server.heads[0]

    run(test)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=40), st.text(max_size=30).map("http://".__add__)))
def test_whatever_a_url_says_there_is_a_response_or_an_http_error(url: str) -> None:
    async def nowhere(host: str, port: int) -> Sequence[SocketAddress]:
        raise OSError("nothing is asked in this test")

    async def test() -> None:
        await refusal(HttpClient(ModuleHttp(), resolve=nowhere), url)

    run(test)


# ---------------------------------------------------------------------- which addresses
SPECIAL = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:7f00:1",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:53aa:64c::1",
    "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "3fff::1",
    "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "100.128.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00::1",
]


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_other_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", SPECIAL)
def test_neither_a_special_address_nor_a_name_that_leads_there_is_asked(address: str) -> None:
    async def test() -> None:
        sender = HttpClient(ModuleHttp(), resolve=resolver(address))
        host = f"[{address}]" if ":" in address else address
        assert await refusal(sender, f"http://{host}/x") == REFUSAL
        assert await refusal(sender, "https://good.example/x") == (
            f"error sending request for url (https://good.example/x): client error (Connect): dns error: {REFUSAL}"
        )

    run(test)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0x7f000001", "127.0.0.1.", "0"])
def test_every_way_to_write_an_address_is_seen_through(host: str) -> None:
    async def test() -> None:
        assert await refusal(HttpClient(ModuleHttp(), resolve=resolver("8.8.8.8")), f"http://{host}/") == REFUSAL

    run(test)
    assert literal(host) in (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("0.0.0.0"))


@pytest.mark.parametrize("host", ["example", "1and1.example", "1.example", "a.b", "999.1.1.1", "xn--a"])
def test_a_name_is_no_address(host: str) -> None:
    assert literal(host) is None


def test_the_real_resolver_finds_this_machine_which_is_refused() -> None:
    async def test() -> None:
        text = await refusal(HttpClient(ModuleHttp()), "http://localhost:3106/")
        assert text == (
            f"error sending request for url (http://localhost:3106/): client error (Connect): dns error: {REFUSAL}"
        )

    run(test)


def test_a_name_without_an_address_says_so() -> None:
    async def test() -> None:
        text = await refusal(HttpClient(ModuleHttp()), "http://nowhere.invalid/")
        head = "error sending request for url (http://nowhere.invalid/): client error (Connect): dns error: "
        assert text.startswith(head + "failed to lookup address information: ")

    run(test)


def test_a_name_is_looked_up_once_and_the_address_that_was_checked_is_connected_to() -> None:
    """A resolver that says something else the second time (DNS rebinding) is not asked a second time."""

    async def test() -> None:
        asked: list[str] = []
        async with serving(OK) as server:
            rebinding = ["127.0.0.1", "10.0.0.1"]

            async def resolve(host: str, port: int) -> Sequence[SocketAddress]:
                asked.append(host)
                return [SocketAddress(socket.AF_INET, (rebinding.pop(0), port))]

            sender = client(resolve=resolve)
            url = f"http://rebinding.example:{server.port}/"
            assert (await sender.send(HttpRequest("GET", url))).body == b"hi"
            assert asked == ["rebinding.example"]
            assert REFUSAL in await refusal(sender, url)

    run(test)


def test_of_the_addresses_of_a_name_only_permitted_ones_are_connected_to() -> None:
    async def test() -> None:
        async with serving(OK) as server:
            sender = client(resolve=resolver("10.0.0.1", "::1", "127.0.0.1"), allowed_networks=("127.0.0.1/32",))
            assert (await sender.send(HttpRequest("GET", f"http://two.example:{server.port}/"))).status == 200

    run(test)


def test_the_next_address_is_tried_when_one_refuses() -> None:
    async def test() -> None:
        async with serving(OK) as server:
            sender = client(resolve=resolver("127.0.0.2", "127.0.0.1"))
            assert (await sender.send(HttpRequest("GET", f"http://two.example:{server.port}/"))).status == 200

    run(test)


def test_a_port_where_nobody_listens_says_so() -> None:
    async def test() -> None:
        assert await refusal(client(), "http://127.0.0.1:1/") == (
            "error sending request for url (http://127.0.0.1:1/): client error (Connect): "
            "tcp connect error: Connection refused (os error 111)"
        )

    run(test)


def test_a_translated_address_is_allowed_only_together_with_what_it_stands_for() -> None:
    networks = Networks(["64:ff9b::/96"])
    assert networks.permit(ipaddress.ip_address("64:ff9b::808:808"))
    assert not networks.permit(ipaddress.ip_address("64:ff9b::7f00:1"))
    assert Networks(["64:ff9b::/96", "127.0.0.0/8"]).permit(ipaddress.ip_address("64:ff9b::7f00:1"))
    assert not networks.permit(ipaddress.ip_address("10.0.0.1"))


def test_a_slow_resolver_is_left_behind_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    release = threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        release.wait(10)
        return []

    async def test() -> None:
        monkeypatch.setattr("stdb.net.addresses.socket.getaddrinfo", slow)
        try:
            started = perf_counter()
            with trio.move_on_after(0.05) as scope:
                await client().send(HttpRequest("GET", "http://slow.example/"))
            assert scope.cancelled_caught
            assert perf_counter() - started < 2
        finally:
            release.set()

    run(test)


# ---------------------------------------------------------------------- redirects
def redirect(status: int, place: str) -> bytes:
    return f"HTTP/1.1 {status} Go\r\nlocation: {place}\r\ncontent-length: 99999999999\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("status", "method", "expected"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "DELETE", "DELETE"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
    ],
)
def test_a_redirect_is_followed_as_browsers_do(status: int, method: str, expected: str) -> None:
    async def test() -> None:
        heads: list[str] = []

        async def handler(wire: Wire) -> None:
            heads.append(await wire.answer(redirect(status, "/next?a=1") if not heads else OK))

        async with serving(handler) as server:
            body = b"" if method == "HEAD" else b"body"
            headers = (("content-type", b"text/x"), ("authorization", b"secret"))
            response = await client().send(HttpRequest(method, server.url + "/first", headers, body))
            assert response.status == 200
        assert heads[1].startswith(f"{expected} /next?a=1 HTTP/1.1\r\n")
        assert "authorization: secret" in heads[1]
        assert ("content-type: text/x" in heads[1]) is (method == expected)
        assert heads[1].endswith("\r\n\r\nbody") is (method == expected != "HEAD")

    run(test)


def test_another_server_does_not_get_the_secrets_of_the_first() -> None:
    async def test() -> None:
        async with serving(OK) as second, serving(redirect(307, f"http://x:y@127.0.0.1:{second.port}/there")) as first:
            headers = (("Authorization", b"s1"), ("Cookie", b"s2"), ("Host", b"s3"), ("x-own", b"kept"))
            request = HttpRequest("POST", first.url, headers, b"body")
            assert (await client().send(request)).status == 200
            assert "s1" in first.heads[0]
            assert "x-own: kept" in second.heads[0]
            assert f"\r\nHost: 127.0.0.1:{second.port}\r\n" in second.heads[0]
            assert not any(word in second.heads[0].lower() for word in ("authorization", "cookie", "s1", "s2", "s3"))

    run(test)


def test_a_redirect_to_an_inner_address_is_refused() -> None:
    async def test() -> None:
        for place in ("http://169.254.169.254/latest/meta-data", "//10.0.0.1/", "http://[::1]:1/", "http://0x7f.2/"):
            async with serving(redirect(302, place)) as server:
                text = await refusal(client(allowed_networks=("127.0.0.1/32",)), server.url + "/")
                assert text == f"error following redirect for url ({server.url}/): {REFUSAL}"

    run(test)


def test_a_redirect_to_another_scheme_is_refused() -> None:
    assert broken(redirect(302, "file:///etc/passwd")) == (
        "error following redirect for url (URL/): builder error for url (file:///etc/passwd): URL scheme is not allowed"
    )


def test_redirects_without_end_are_ended() -> None:
    async def test() -> None:
        heads: list[str] = []

        async def handler(wire: Wire) -> None:
            heads.append(await wire.answer(redirect(302, "/again")))

        async with serving(handler) as server:
            text = await refusal(client(), server.url + "/")
            assert text == f"error following redirect for url ({server.url}/): too many redirects"
            assert len(heads) == REDIRECTS_MAX + 1

    run(test)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 302 Go", b"HTTP/1.1 300 Many\r\nlocation: /x", b"HTTP/1.1 302 Go\r\nlocation: /a\r\nlocation: /b"],
)
def test_a_response_that_sends_one_nowhere_is_the_response(head: bytes) -> None:
    assert answered(head + b"\r\ncontent-length: 0\r\n\r\n").status // 100 == 3


# ---------------------------------------------------------------------- what a server may answer
@pytest.mark.parametrize(
    ("data", "body", "version"),
    [
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1;x=y\r\n!\r\n0\r\ntrailer: x\r\n\r\n",
            b"hi!",
            2,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", 2),
        (b"HTTP/1.0 200 OK\ncontent-length: 2\n\nhi", b"hi", 1),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\na: b\r\n\r\n" + OK, b"hi", 2),
        (OK + b"HTTP/1.1 200 another", b"hi", 2),
    ],
)
def test_a_response_is_read_however_it_is_framed(data: bytes, body: bytes, version: int) -> None:
    response = answered(data)
    assert (response.body, response.version) == (body, version)


def test_a_response_without_a_length_ends_with_the_connection() -> None:
    async def handler(wire: Wire) -> None:
        await wire.answer(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await wire.stream.aclose()

    assert answered(handler).body == b"all of it"


def test_a_response_that_comes_byte_by_byte_is_the_same() -> None:
    async def handler(wire: Wire) -> None:
        await wire.head()
        for position in range(len(OK)):
            await wire.stream.send_all(OK[position : position + 1])
            await trio.testing.wait_all_tasks_blocked()

    assert answered(handler).body == b"hi"


def test_compressed_content_is_handed_on_as_it_is() -> None:
    """So no few bytes become many: what counts against the limit is what came."""
    data = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\n\x1f\x8b\x08\x00\x00"
    assert answered(data) == HttpResponse(
        200, (("content-encoding", b"gzip"), ("content-length", b"5")), b"\x1f\x8b\x08\x00\x00"
    )


def test_a_server_may_answer_before_it_has_read_the_request() -> None:
    async def test() -> None:
        async def handler(wire: Wire) -> None:
            await wire.head()
            await wire.stream.send_all(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n")
            await trio.sleep_forever()

        async with serving(handler) as server:
            request = HttpRequest("POST", server.url, (), bytes(16_000_000))
            assert (await client().send(request)).status == 413

    run(test)


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_a_malformed_response_is_an_error_that_says_so(data: bytes) -> None:
    text = broken(data)
    assert text.startswith("request or response body error for url (URL/): invalid HTTP response: ")
    assert "bytearray" not in text
    assert len(text) < 300


def test_a_malformed_response_is_quoted_as_far_as_anybody_reads() -> None:
    begin = "request or response body error for url (URL/): invalid HTTP response: "
    assert broken(b"HTTP/1.1 two hundred\r\n\r\n") == f"{begin}illegal status line: 'HTTP/1.1 two hundred'"
    text = broken(b"HTTP/1.1 200 OK\r\n" + b"x" * 5000 + b"\r\n\r\n")
    assert text == f"{begin}illegal header line: '{'x' * 99}…"


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n"])
def test_a_connection_that_ends_within_the_head_is_an_error(sent: bytes) -> None:
    async def handler(wire: Wire) -> None:
        await wire.answer(sent)
        await wire.stream.aclose()

    assert broken(handler) == (
        "error sending request for url (URL/): client error (SendRequest): connection closed before message completed"
    )


@pytest.mark.parametrize("framing", [b"content-length: 9\r\n\r\nhalf", b"transfer-encoding: chunked\r\n\r\n9\r\nhalf"])
def test_a_connection_that_ends_within_the_content_is_an_error(framing: bytes) -> None:
    async def handler(wire: Wire) -> None:
        await wire.answer(b"HTTP/1.1 200 OK\r\n" + framing)
        await wire.stream.aclose()

    assert broken(handler).startswith("request or response body error for url (URL/): invalid HTTP response: ")


def test_a_connection_that_is_reset_is_an_error() -> None:
    async def handler(wire: Wire) -> None:
        await wire.head()
        assert isinstance(wire.stream, trio.SocketStream)
        wire.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        await wire.stream.aclose()

    assert broken(handler).endswith("connection closed before message completed")


async def send_forever(wire: Wire, first: bytes, then: bytes) -> None:
    await wire.answer(first)
    while True:
        await wire.stream.send_all(then)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10001\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\n\r\n", bytes(5000)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1388\r\n" + bytes(5000) + b"\r\n"),
    ],
    ids=["announced", "until the end", "chunked"],
)
def test_a_response_beyond_the_limit_is_given_up(first: bytes, then: bytes) -> None:
    async def handler(wire: Wire) -> None:
        if then:
            await send_forever(wire, first, then)
        await wire.answer(first)

    assert broken(handler, response_bytes_max=10_000) == (
        "request or response body error for url (URL/): "
        "the response has more than 10000 bytes, the most this server takes (response-bytes-max)"
    )


def test_a_response_of_exactly_the_limit_is_taken() -> None:
    assert (
        len(
            answered(
                b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n" + bytes(10_000), response_bytes_max=10_000
            ).body
        )
        == 10_000
    )


def test_the_announced_length_of_a_response_to_head_is_nobody_s_content() -> None:
    assert answered(b"HTTP/1.1 200 OK\r\ncontent-length: 10001\r\n\r\n", "HEAD", response_bytes_max=10_000).body == b""


def test_a_response_in_countless_tiny_chunks_is_given_up_and_stops_nobody_else() -> None:
    gaps: list[float] = []

    async def watch() -> None:
        while True:
            before = perf_counter()
            await trio.sleep(0.001)
            gaps.append(perf_counter() - before)

    async def test() -> None:
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        flood = partial(send_forever, first=head, then=b"1\r\nx\r\n" * 20_000)
        async with serving(flood) as server, trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            text = await refusal(client(), server.url)
            nursery.cancel_scope.cancel()
        assert text.endswith("the response comes in pieces of less than 64 bytes")

    run(test)
    assert sorted(gaps)[len(gaps) * 9 // 10] < 0.05


@pytest.mark.parametrize(
    "then", [b"a: b\r\n", b"a: " + b"x" * 10_000 + b"\r\n", b"x" * 10_000], ids=["lines", "long lines", "one line"]
)
def test_a_head_without_end_is_given_up(then: bytes) -> None:
    text = broken(partial(send_forever, first=b"HTTP/1.1 200 OK\r\n", then=then))
    assert text == "error sending request for url (URL/): client error (SendRequest): message head is too large"


def test_a_head_of_too_many_lines_is_not_even_read() -> None:
    def head(lines: int) -> bytes:
        return b"HTTP/1.1 204 OK\r\n" + b"a: b\r\n" * lines + b"\r\n"

    assert len(answered(head(HEAD_LINES_MAX)).headers) == HEAD_LINES_MAX
    assert broken(head(HEAD_LINES_MAX + 1)).endswith("message head is too large")


def test_interim_responses_without_end_are_given_up() -> None:
    text = broken(partial(send_forever, first=b"", then=b"HTTP/1.1 102 Processing\r\n\r\n"))
    assert text.endswith(f"client error (SendRequest): more than {INTERIM_MAX} interim responses")


_PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 302 \r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 101 S\r\n", b"\r\n",
        b"\n", b"\r", b"content-length: 5\r\n", b"content-length: 99999999999999999999\r\n",
        b"transfer-encoding: chunked\r\n", b"location: ", b"http://[\r\n", b"/x\r\n", b"5\r\nhello\r\n", b"0\r\n",
        b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"a: b\r\n", b" folded\r\n", b"\xff",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_PIECES, st.binary(max_size=20)), max_size=12), st.sampled_from(["GET", "HEAD"]))
def test_whatever_a_server_sends_there_is_a_response_or_an_http_error(pieces: list[bytes], method: str) -> None:
    async def test() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        ask = ask_of(HttpRequest(method, "http://x.example/"))
        connection = h11.Connection(h11.CLIENT)
        http_client._request_bytes(connection, ask)
        for piece in pieces:
            await theirs.send_all(piece)
        await theirs.aclose()
        with suppress(HttpError):
            outcome = await client(response_bytes_max=1000)._read(
                http_client._Answer(ours, connection, ask.target), ask
            )
            assert isinstance(outcome, HttpResponse | Ask)

    run(test)


async def never(wire: Wire) -> None:
    await wire.head()
    await trio.sleep_forever()


async def slowly(wire: Wire) -> None:
    await wire.answer(b"HTTP/1.1 200 OK\r\n\r\n")
    with suppress(trio.BrokenResourceError):
        while True:
            await wire.stream.send_all(b"x")
            await trio.sleep(0.001)


async def unread(wire: Wire) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("behaviour", [never, slowly, unread])
def test_whoever_cancels_closes_the_connection_at_once(behaviour: Handler) -> None:
    async def test() -> None:
        came, closed = trio.Event(), trio.Event()

        async def handler(wire: Wire) -> None:
            came.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(behaviour, wire)
                while not wire_is_closed(wire):  # noqa: ASYNC110 - what the kernel knows has no event
                    await trio.sleep(0.002)
                nursery.cancel_scope.cancel()
            closed.set()

        async with serving(handler) as server:
            asked = HttpRequest("POST", server.url, (), bytes(8_000_000 if behaviour is unread else 0))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client().send, asked)
                await came.wait()
                await trio.sleep(0.05)
                started = perf_counter()
                nursery.cancel_scope.cancel()
            assert nursery.cancel_scope.cancelled_caught
            assert perf_counter() - started < 2
            with trio.fail_after(5):
                await closed.wait()

    run(test)


def wire_is_closed(wire: Wire) -> bool:
    """Tell whether the peer has closed, from the state of the connection that Linux keeps."""
    assert isinstance(wire.stream, trio.SocketStream)
    state = wire.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != 1  # TCP_ESTABLISHED


# ---------------------------------------------------------------------- TLS
@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return how a server of `good.example` and 127.0.0.1 shows itself, and how a client that trusts it checks."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("good.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    trusting = http_client._tls_context()
    trusting.load_verify_locations(path)
    return server, trusting


def test_a_server_shows_who_it_is_for_the_name_that_was_asked_for(
    authority: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server_tls, trusting = authority
    shown: list[str | None] = []
    server_tls.sni_callback = lambda _object, name, _context: shown.append(name)

    async def test() -> None:
        async with serving(OK, server_tls) as server:
            sender = client(tls=trusting, resolve=resolver("127.0.0.1"))
            assert (await sender.send(HttpRequest("GET", f"https://good.example:{server.port}/"))).body == b"hi"
            assert (await sender.send(HttpRequest("GET", server.url))).body == b"hi"
            text = await refusal(sender, f"https://bad.example:{server.port}/")
            assert "client error (Connect): " in text
            assert "certificate is not valid for 'bad.example'" in text
            assert f"\r\nHost: good.example:{server.port}\r\n" in server.heads[0]

    run(test)
    assert shown == ["good.example", None, "bad.example"]


def test_a_server_that_nobody_vouches_for_is_not_asked(authority: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def test() -> None:
        async with serving(OK, authority[0]) as server:
            text = await refusal(client(), server.url)
            assert "client error (Connect): " in text
            assert "CERTIFICATE_VERIFY_FAILED" in text
            assert server.heads == []

    run(test)


def test_a_server_without_tls_is_not_taken_for_one_with() -> None:
    async def plain(wire: Wire) -> None:
        await wire.stream.send_all(b"HTTP/1.1 400 No\r\n\r\n")

    async def test() -> None:
        async with serving(plain) as server:
            text = await refusal(client(), server.url.replace("http:", "https:") + "/")
            assert "client error (Connect): " in text
            assert "SSL" in text

    run(test)


def test_a_cancelled_request_over_tls_waits_for_no_farewell(authority: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def test() -> None:
        async with serving(unread, authority[0]) as server:
            started = perf_counter()
            with trio.move_on_after(0.05) as scope:
                await client(tls=authority[1]).send(HttpRequest("POST", server.url, (), bytes(8_000_000)))
            assert scope.cancelled_caught
            assert perf_counter() - started < 2

    run(test)
