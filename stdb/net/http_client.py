"""HTTP client: requests of procedures to other servers, over HTTP/1.1, one connection each.

Responsible for: connecting to none but permitted addresses, TLS, redirects, limits of size, errors as texts.
Not responsible for: what is sent (`http_target`), time limits and how many at once (`stdb.actors.outgoing`).

A name is looked up once, the addresses it leads to are checked, and the connection is made to one of those: nothing
asks a resolver again in between. Every redirect starts over. Proxies of the environment are not used.
Content is handed on as it came: compressed content is not asked for, and not unpacked.

A response is read while the request is being sent, since a server may answer before it has read it. A server that
answers too much, in too many pieces or nonsense ends its own request; one that answers slowly runs into the time limit
outside, which cancels, and the connection is closed without waiting for anything.

Why not httpx: it resolves by itself, what its pool closes under cancellation may wait for the peer, and what counts
here (whole heads, chunks, bytes before decoding) it does not tell.

Source: spec 04 section 3.7.
"""

import os
import re
import ssl
import struct
from collections.abc import Sequence
from time import perf_counter

import h11
import trio

from stdb.errors import HttpError
from stdb.modules.protocol import HTTP_1_1, HttpRequest, HttpResponse
from stdb.net.addresses import LOOKUPS_MAX, Networks, Resolve, SocketAddress, literal, resolve
from stdb.net.http_target import Ask, HeaderList, Target, ask_of, follow
from stdb.storage.settings import ModuleHttp

__all__ = ["HttpClient"]

REDIRECTS_MAX = 10
HEAD_BYTES_MAX = 64 * 1024
"""Of a response's head, and of a request's."""
HEAD_LINES_MAX = 256
INTERIM_MAX = 16
"""Responses `100 Continue` and the like before the response."""
PIECES_FREE = 20_000
PIECE_BYTES_MIN = 64
"""Pieces of a response beyond the free ones are this large on average: smaller ones cost more than they bring."""
CONNECT_SECONDS_MAX = 5.0
"""For one address while there is another one to try."""

_RECEIVE_BYTES = 64 * 1024
_SLICE_SECONDS = 0.002
_REFUSAL = "refusing to connect to private or special-purpose addresses"
_CUT = "connection closed before message completed"
_QUOTED = re.compile(r"bytearray\(b(.*)\)", re.DOTALL)
_QUOTED_MAX = 100


class HttpClient:
    """Sends requests to other servers: an `HttpSender`."""

    def __init__(
        self,
        settings: ModuleHttp,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._networks = Networks(settings.allowed_networks)
        self._own_resolve = resolve
        self._lookups = trio.CapacityLimiter(LOOKUPS_MAX)
        self._tls = tls

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send a request, follow where it is sent on to, and return the response; see `HttpSender.send`."""
        if not self._settings.enabled:
            raise HttpError("this server sends no HTTP requests of modules: `enabled` of `[module-http]` is off")
        first = ask_of(request)
        limit = self._settings.request_bytes_max
        if len(first.body) > limit:
            sizes = f"the body has {len(first.body)} bytes, this server sends at most {limit} (request-bytes-max)"
            raise _failed(first.target, sizes)
        outcome = await self._exchange(first)
        try:
            for _ in range(REDIRECTS_MAX):
                if isinstance(outcome, HttpResponse):
                    return outcome
                outcome = await self._exchange(outcome)
        except HttpError as error:
            raise HttpError(f"error following redirect for url ({first.target}): {error}") from error
        if isinstance(outcome, HttpResponse):
            return outcome
        raise HttpError(f"error following redirect for url ({first.target}): too many redirects")

    async def _exchange(self, ask: Ask) -> HttpResponse | Ask:
        """Ask one server; return its response, or what to ask next."""
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        data = _request_bytes(connection, ask)
        stream = await self._connect(ask.target)
        outcome: HttpResponse | Ask | HttpError
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write, stream, data)
                try:
                    outcome = await self._read(_Answer(stream, connection, ask.target), ask)
                except HttpError as error:
                    outcome = error
                nursery.cancel_scope.cancel()
            if not isinstance(outcome, HttpError):
                _close_in_order(stream)
        finally:
            await trio.aclose_forcefully(stream)
        if isinstance(outcome, HttpError):
            raise outcome
        return outcome

    async def _read(self, answer: "_Answer", ask: Ask) -> HttpResponse | Ask:
        head = await answer.head()
        headers: HeaderList = tuple((bytes(name), bytes(value)) for name, value in head.headers)
        following = follow(ask, head.status_code, headers)
        if following is not None:
            return following
        body = await answer.body(self._settings.response_bytes_max, headers if ask.method != "HEAD" else ())
        shown = tuple((name.decode("latin-1"), value) for name, value in headers)
        return HttpResponse(head.status_code, shown, body, 1 if head.http_version == b"1.0" else HTTP_1_1)

    # ------------------------------------------------------------------ connecting
    async def _connect(self, target: Target) -> trio.abc.Stream:
        """Return a connection to one of the addresses that a target leads to, all of which are permitted."""
        addresses = await self._permitted(target)
        for position, address in enumerate(addresses):
            is_last = position == len(addresses) - 1
            try:
                stream = await _connect_to(address, float("inf") if is_last else CONNECT_SECONDS_MAX)
            except OSError as error:
                if is_last:
                    raise _failed(target, f"client error (Connect): tcp connect error: {_reason(error)}") from error
            else:
                return stream if target.scheme == "http" else await self._secure(stream, target)
        raise AssertionError("there is at least one address")

    async def _permitted(self, target: Target) -> Sequence[SocketAddress]:
        written = literal(target.host)
        if written is not None and not self._networks.permit(written):
            raise HttpError(_REFUSAL)
        try:
            found = await self._resolve(str(written or target.host), target.port)
        except (OSError, UnicodeError) as error:
            reason = f"failed to lookup address information: {_reason(error)}"
            raise _failed(target, f"client error (Connect): dns error: {reason}") from error
        permitted = [address for address in found if self._networks.permit(address.ip)]
        if not permitted:
            raise _failed(target, f"client error (Connect): dns error: {_REFUSAL}")
        return permitted

    async def _resolve(self, host: str, port: int) -> Sequence[SocketAddress]:
        if self._own_resolve is not None:
            return await self._own_resolve(host, port)
        return await resolve(host, port, self._lookups)

    async def _secure(self, plain: trio.SocketStream, target: Target) -> trio.abc.Stream:
        try:
            if self._tls is None:
                self._tls = await trio.to_thread.run_sync(_tls_context)
            name = target.host.removesuffix(".")
            stream = trio.SSLStream(plain, self._tls, server_hostname=name, https_compatible=True)
            await stream.do_handshake()
        except (trio.BrokenResourceError, ValueError) as error:
            await trio.aclose_forcefully(plain)
            raise _failed(target, f"client error (Connect): {error.__cause__ or error}") from error
        except BaseException:
            await trio.aclose_forcefully(plain)
            raise
        return stream


class _Answer:
    """One response, read from a connection within limits."""

    def __init__(self, stream: trio.abc.Stream, connection: h11.Connection, target: Target) -> None:
        self._stream = stream
        self._connection = connection
        self._target = target

    async def head(self) -> h11.Response:
        """Return status and headers. Raises HttpError."""
        waiting = bytearray()
        for _ in range(INTERIM_MAX + 1):
            end = await self._wait_head(waiting)
            self._connection.receive_data(bytes(waiting[:end]))
            del waiting[:end]
            event = self._next()
            if isinstance(event, h11.Response):
                if event.http_version not in (b"1.0", b"1.1"):
                    raise self._broken(f"invalid HTTP response: version {event.http_version.decode()}")
                if waiting:
                    self._connection.receive_data(bytes(waiting))
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise self._broken("invalid HTTP response: it begins with nothing")
        raise _failed(self._target, f"client error (SendRequest): more than {INTERIM_MAX} interim responses")

    async def body(self, bytes_max: int, headers: HeaderList) -> bytes:
        """Return the content; a length among the headers that is too much is refused at once. Raises HttpError."""
        too_large = f"the response has more than {bytes_max} bytes, the most this server takes (response-bytes-max)"
        if any(name == b"content-length" and int(value) > bytes_max for name, value in headers):
            raise self._broken(too_large)
        content = bytearray()
        pieces, stop_at = 0, perf_counter() + _SLICE_SECONDS
        while True:
            event = self._next()
            if isinstance(event, h11.Data):
                content += event.data
                pieces += 1
                if len(content) > bytes_max:
                    raise self._broken(too_large)
                if pieces > PIECES_FREE + len(content) // PIECE_BYTES_MIN:
                    raise self._broken(f"the response comes in pieces of less than {PIECE_BYTES_MIN} bytes")
                if perf_counter() >= stop_at:
                    await trio.lowlevel.checkpoint()
                    stop_at = perf_counter() + _SLICE_SECONDS
            elif event is h11.NEED_DATA:
                self._connection.receive_data(await self._receive())
            else:
                return bytes(content)

    async def _wait_head(self, waiting: bytearray) -> int:
        """Receive until a whole head has come; return where it ends."""
        searched = 0
        while True:
            ends = [at + len(end) for end in (b"\n\r\n", b"\n\n") if (at := waiting.find(end, searched)) >= 0]
            size = min(ends) if ends else len(waiting)
            if size > HEAD_BYTES_MAX or (ends and waiting.count(b"\n", 0, size) > HEAD_LINES_MAX + 2):
                raise _failed(self._target, "client error (SendRequest): message head is too large")
            if ends:
                return size
            searched = max(0, len(waiting) - 2)
            received = await self._receive()
            if not received:
                raise _failed(self._target, f"client error (SendRequest): {_CUT}")
            waiting += received

    def _next(self) -> object:
        try:
            return self._connection.next_event()
        except h11.RemoteProtocolError as error:
            raise self._broken(f"invalid HTTP response: {_quoting(error)}") from error

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_RECEIVE_BYTES))
        except trio.BrokenResourceError as error:
            raise _failed(self._target, f"client error (SendRequest): {_CUT}") from error

    def _broken(self, reason: str) -> HttpError:
        return HttpError(f"request or response body error for url ({self._target}): {reason}")


def _failed(target: Target, reason: str) -> HttpError:
    return HttpError(f"error sending request for url ({target}): {reason}")


def _quoting(error: h11.RemoteProtocolError) -> str:
    """Return what is wrong with a response, the beginning of what was sent in quotes."""
    return _QUOTED.sub(lambda sent: sent[1] if len(sent[1]) <= _QUOTED_MAX else sent[1][:_QUOTED_MAX] + "…", str(error))


def _reason(error: BaseException) -> str:
    """Return what the system says of an error."""
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number is not None and number > 0:
        return f"{os.strerror(number)} (os error {number})"
    return str(getattr(error, "strerror", None) or error)


def _request_bytes(connection: h11.Connection, ask: Ask) -> bytes:
    try:
        target = ask.target.url.raw_path
        head = connection.send(h11.Request(method=ask.method, target=target, headers=ask.wire_headers())) or b""
        if len(head) > HEAD_BYTES_MAX:
            raise _failed(ask.target, f"URL and headers have {len(head)} bytes, at most {HEAD_BYTES_MAX} are sent")
        content = connection.send(h11.Data(data=ask.body)) or b""
        return head + content + (connection.send(h11.EndOfMessage()) or b"")
    except h11.LocalProtocolError as error:
        raise HttpError(f"builder error for url ({ask.target}): {error}") from error


async def _write(stream: trio.abc.Stream, data: bytes) -> None:
    """Send a request. A server that does not want all of it has answered or closes: reading tells."""
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        return


def _close_in_order(stream: trio.abc.Stream) -> None:
    """Have the end of a connection told as its end; what is given up half-way is reset."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 0, 0))


async def _connect_to(address: SocketAddress, seconds_max: float) -> trio.SocketStream:
    """Return a connection to this address and no other.

    Raises:
        OSError: There is none.
    """
    socket = trio.socket.socket(address.family, trio.socket.SOCK_STREAM, trio.socket.IPPROTO_TCP)
    try:
        # nothing lingers in the kernel for a peer that does not read
        socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        with trio.move_on_after(seconds_max) as waiting:
            await socket.connect(address.address)
        if waiting.cancelled_caught:
            raise TimeoutError("connection timed out")
        return trio.SocketStream(socket)
    except BaseException:
        socket.close()
        raise


def _tls_context() -> ssl.SSLContext:
    """Return what certificates are checked with: those that the system trusts. Reads files."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
