"""The front door: one port for HTTP and WebSockets, one task a connection.

Responsible for: accepting, the life of a connection, the checks before a handler, turning errors into answers.
Not responsible for: HTTP framing (`http`), the table of paths (`routing`, `routes_*`), databases (`stdb.actors`).

Source: spec 05 section 1.1. A request that fails by our own mistake ends with 500 and one traceback in the server's
log; it ends no other request, no other connection, no database.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import h11
import trio

from stdb.actors.host import Host, now_us
from stdb.errors import StdbError
from stdb.net import (
    routes_backup,
    routes_call,
    routes_database,
    routes_energy,
    routes_environment,
    routes_history,
    routes_identity,
    routes_legacy_database,
    routes_legacy_identity,
    routes_legacy_publish,
    routes_legacy_sql,
    routes_legacy_subscribe,
    routes_publish,
    routes_rows,
    routes_server,
    routes_subscribe,
    routes_user,
)
from stdb.net.auth import Access
from stdb.net.cors import CORS, preflight
from stdb.net.errors import text_response
from stdb.net.http import HttpConnection, Request, Response
from stdb.net.metrics import Counter
from stdb.net.query import Query
from stdb.net.routing import Call, Lookup, Resource, Router, Upgraded
from stdb.net.stream import FrameStream, SocketStream
from stdb.net.tokens import Tokens
from stdb.storage.settings import Settings

__all__ = ["FrontDoor"]

_RESOURCES = (
    *routes_server.RESOURCES,
    *routes_identity.RESOURCES,
    *routes_database.RESOURCES,
    *routes_environment.RESOURCES,
    *routes_publish.RESOURCES,
    *routes_call.RESOURCES,
    *routes_history.RESOURCES,
    *routes_backup.RESOURCES,
    *routes_rows.RESOURCES,
    *routes_user.RESOURCES,
    *routes_subscribe.RESOURCES,
    *routes_energy.RESOURCES,
    *routes_legacy_identity.RESOURCES,
    *routes_legacy_database.RESOURCES,
    *routes_legacy_publish.RESOURCES,
    *routes_legacy_sql.RESOURCES,
    *routes_legacy_subscribe.RESOURCES,
)
_NOT_FOUND = Response(404)
BODIES = 8
"""Bodies of the greatest length that requests to routes of modules, which know nobody, may hold at once."""

_logger = logging.getLogger("stdb.net")


class FrontDoor:
    """What every request of one server needs, and the loop that takes them."""

    def __init__(
        self,
        host: Host,
        tokens: Tokens,
        settings: Settings | None = None,
        *,
        operator: bytes | None = None,
        now_us: Callable[[], int] = now_us,
    ) -> None:
        """Serve `host`; `operator` is the identity that may grant (DESIGN decision 10)."""
        self.host = host
        self.tokens = tokens
        self.settings = settings or Settings()
        self.operator = operator
        self.body_bytes_left = BODIES * self.settings.stdb.route_bytes_max
        """What requests to routes of modules may hold in memory together, less what they hold."""
        self.now_us = now_us
        self.bytes_answered = Counter(
            "spacetime_http_response_size_bytes_total", "db", "Bytes of the bodies of HTTP answers"
        )
        self.clients_opened = Counter(
            "spacetime_worker_ws_clients_spawned", "database_identity", "WebSocket clients ever served", "gauge"
        )
        self.clients_closed = Counter(
            "spacetime_worker_ws_clients_closed_connection", "database_identity", "WebSocket clients that left", "gauge"
        )
        self.counters: Sequence[Counter] = (self.bytes_answered, self.clients_opened, self.clients_closed)
        self._router = Router(_RESOURCES)
        self._idle: set[trio.CancelScope] = set()
        self._accepting = trio.CancelScope()
        self._is_closing = False

    async def serve(
        self,
        listeners: list[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections until `stop_accepting`, then return once the last of them has ended."""
        async with trio.open_nursery() as connections:
            with self._accepting:
                await trio.serve_listeners(
                    self._serve_socket, listeners, handler_nursery=connections, task_status=task_status
                )

    def stop_accepting(self) -> None:
        """Take no new connections, no further request on those that are idle now, and end answers without an end."""
        self._is_closing = True
        self._accepting.cancel()
        for scope in self._idle:
            scope.cancel()

    async def serve_connection(self, stream: FrameStream) -> None:
        """Serve one connection until it ends; the stream is closed afterwards. May be cancelled at any time."""
        try:
            await self._serve_requests(HttpConnection(stream))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # the client left, or stopped taking its answer: it learns no more
        except Exception:
            _logger.exception("a connection ended by a mistake of the server")
        finally:
            stream.close_nowait()

    # ------------------------------------------------------------------ a connection
    async def _serve_socket(self, stream: trio.SocketStream) -> None:
        await self.serve_connection(SocketStream.take(stream.socket))

    async def _serve_requests(self, connection: HttpConnection) -> None:
        while not self._is_closing:
            try:
                request = await self._next_request(connection)
                if request is None:
                    return
                response = await self._answer(connection, request)
                if isinstance(response, Upgraded):
                    await response.serve()
                    return
                await self._send(connection, request, response)
            except h11.RemoteProtocolError as error:
                await connection.send_refusal(error.error_status_hint)
                return
            except trio.TooSlowError:
                await connection.send_refusal(408)
                return
            if not await connection.finish():
                return

    async def _next_request(self, connection: HttpConnection) -> Request | None:
        """Wait for a request; None also when the server closes meanwhile."""
        with self._until_closing():
            return await connection.next_request()
        return None

    async def _send(self, connection: HttpConnection, request: Request, response: Response) -> None:
        """Send an answer; one that has no end of its own ends when the server closes."""
        is_head = request.method == "HEAD"
        with nullcontext() if isinstance(response.body, bytes) else self._until_closing():
            await connection.send(response, is_head=is_head)
        if connection.about is not None and self.host.control.database(connection.about) is not None:
            self.bytes_answered.add(connection.about, connection.bytes_sent)
        connection.about, connection.bytes_sent = None, 0

    @contextmanager
    def _until_closing(self) -> Iterator[None]:
        """Cancel what is inside when the server closes, and leave it quietly."""
        with trio.CancelScope() as scope:
            self._idle.add(scope)
            try:
                yield
            finally:
                self._idle.discard(scope)

    # ------------------------------------------------------------------ a request
    async def _answer(self, connection: HttpConnection, request: Request) -> Response | Upgraded:
        """Return the answer to a request, headers that belong to its path included."""
        found = self._router.match(request.path)
        if found is None:
            return _NOT_FOUND
        resource, parameters = found
        if request.method == "OPTIONS":
            return _with_headers(preflight(resource.allow), CORS)
        call = Call(self, connection, request, Query(request.query), parameters, resource.conventions)
        response = await self._checked(call, resource)
        if isinstance(response, Upgraded):
            return response
        headers: tuple[tuple[str, str], ...] = CORS
        if call.credentials is not None and resource.access is Access.ANONYMOUS:
            caller = call.credentials
            headers = (("spacetime-identity", caller.hex), ("spacetime-identity-token", caller.token), *CORS)
        if resource.handler(request.method) is None:
            headers = (("allow", resource.allow), *headers)
        return _with_headers(response, headers)

    async def _checked(self, call: Call, resource: Resource) -> Response | Upgraded:
        """Return what the handler answers; every error becomes an answer here."""
        try:
            handler = resource.handler(call.request.method)
            if handler is not None or resource.access is Access.ANONYMOUS:
                await call.authenticate(resource.access)
            if resource.lookup == Lookup.BEFORE_METHOD:
                call.database()
            return Response(405) if handler is None else await handler(call)
        except StdbError as error:
            response = resource.conventions.error_response(error)
            if response is None:
                return self._mistake(call)
            return response
        except (h11.RemoteProtocolError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception:  # noqa: BLE001 - the owner of a request's life
            return self._mistake(call)

    def _mistake(self, call: Call) -> Response:
        _logger.exception("%s %s failed by a mistake of the server", call.request.method, call.request.path)
        return text_response("the server failed to answer this request; its log says why", 500)


def _with_headers(response: Response, headers: tuple[tuple[str, str], ...]) -> Response:
    return response._replace(headers=(*response.headers, *headers))
