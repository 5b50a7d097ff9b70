"""Connections: who is connected to one database, in its tables, to its module and in the actor's memory.

Responsible for: connect and disconnect as transactions, sessions, equal connection ids, closing clients.
Not responsible for: turns and transactions (`database`), what a client holds (`stdb.subscriptions`), sockets.

Rules: spec 07 sections 5 and 9, spec 02 section 11; spec 09 section 2.2 (sessions).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from stdb.actors.attachment import Attachment
from stdb.actors.calls import COMMITTED
from stdb.actors.refusals import ConnectOutOfTime, ConnectRefused, DatabaseUnavailable
from stdb.actors.sink import Client, ClientSink, OutcomeKind, ReducerOutcome
from stdb.schema.model import Lifecycle
from stdb.sql.work import Steps

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor
    from stdb.datastore.transaction import Transaction

__all__ = ["MODULE_EXITED", "SESSION_BUSY", "Connections"]

SESSION_BUSY = (4000, "session busy")
MODULE_EXITED = (1001, "module exited")

_ON_CONNECT, _ON_DISCONNECT = "__identity_connected__", "__identity_disconnected__"


class Connections:
    """The clients of one DatabaseActor, which calls all of this within its turns but `add` and `bury`."""

    def __init__(self, actor: "DatabaseActor") -> None:
        self._actor = actor
        self._attachments: dict[Attachment, None] = {}
        self._clients: dict[tuple[bytes, bytes], Attachment] = {}
        self._sessions: dict[tuple[bytes, bytes], Attachment] = {}
        self._credentials: dict[bytes, tuple[bytes, bytes]] = {}
        """Per connection id: whose credentials are stored, and the row."""
        self._is_ending = False
        """Everybody was disconnected: nobody may connect any more."""
        self._client_table = actor.datastore.table("st_client")
        self._credentials_table = actor.datastore.table("st_connection_credentials")

    def __len__(self) -> int:
        """Return how many clients are connected."""
        return len(self._clients)

    def add(self, attachment: Attachment) -> None:
        """Know a client that is about to connect."""
        self._attachments[attachment] = None

    def bury(self, code: int, reason: str) -> None:
        """Close every client without running anything; the database is gone or restarting."""
        for attachment in self._attachments:
            attachment.sink.close(code, reason)
            attachment.mark_gone()
        self._attachments.clear()
        self._clients.clear()

    # ------------------------------------------------------------------ coming
    def connect(self, attachment: Attachment) -> Steps[None]:
        """Run `client_connected` and say hello, or drop the client."""
        client = attachment.client
        if self._is_ending:
            self._drop(attachment, *MODULE_EXITED)
            return
        if (yield from self._is_session_busy(attachment)):
            self._drop(attachment, *SESSION_BUSY)
            return
        older = self._clients.get((client.identity, client.connection_id))
        if older is not None:
            yield from self._cut(older)
        refusal = yield from self._insert_client(client)
        if refusal is not None:
            self._drop(attachment, None, refusal.text)
            return
        self._clients[client.identity, client.connection_id] = attachment
        if attachment.session_id is not None:
            self._sessions[client.identity, attachment.session_id] = attachment
        attachment.is_connected = True
        attachment.subscriber = self._actor.queries.subscriber(client, attachment.sink)
        attachment.sink.initial_connection(client.identity, client.connection_id, attachment.token)
        self._actor.mark_dirty(attachment.sink)

    def arrive(self, client: Client) -> Steps[None]:
        """Connect for the time of one request; `depart` ends it. Raises ConnectRefused, DatabaseUnavailable."""
        if self._is_ending:
            raise DatabaseUnavailable("the server is stopping")
        refusal = yield from self._insert_client(client)
        if refusal is not None:
            raise ConnectOutOfTime if refusal.kind == OutcomeKind.OUT_OF_TIME else ConnectRefused(refusal.text)

    def _is_session_busy(self, attachment: Attachment) -> Steps[bool]:
        """Tell whether a living connection holds this one's session; it is cut, so that a retry succeeds."""
        if attachment.session_id is None:
            return False
        holder = self._sessions.get((attachment.client.identity, attachment.session_id))
        if holder is None:
            return False
        yield from self._cut(holder)
        return True

    def _insert_client(self, client: Client) -> Steps[ReducerOutcome | None]:
        """Store who connects and run `client_connected` in one transaction; return why it refused, or None.

        Modules of 0.11 refuse nobody: who is not stored then is there all the same (spec 03 section 2).
        """
        identity, connection_id, payload = client
        is_first = connection_id not in self._credentials
        text = payload.encode()
        credentials = connection_id + len(text).to_bytes(4, "little") + text

        def insert(transaction: "Transaction") -> None:
            transaction.insert(self._client_table, identity + connection_id)
            if is_first:
                transaction.insert(self._credentials_table, credentials)

        entry = self._actor.reducers.lifecycle(Lifecycle.ON_CONNECT)
        outcome, _, _ = yield from self._actor.transact_patiently(
            entry, client, connection_id, name=_ON_CONNECT, before=insert
        )
        if outcome is not COMMITTED:
            return None if self._actor.module.definition.is_0_11 else outcome
        if is_first:
            self._credentials[connection_id] = identity, credentials
        return None

    # ------------------------------------------------------------------ going
    def disconnect(self, attachment: Attachment) -> Steps[None]:
        """Run `client_disconnected` and forget the client; nothing happens the second time (spec 07 section 5)."""
        self._attachments.pop(attachment, None)
        if attachment.is_connected:
            attachment.is_connected = False
            self._actor.procedures.cancel_of(attachment)
            client = attachment.client
            assert attachment.subscriber is not None
            attachment.subscriber.close()
            attachment.subscriber = None
            self._clients.pop((client.identity, client.connection_id), None)
            if attachment.session_id is not None:
                self._sessions.pop((client.identity, attachment.session_id), None)
            yield from self.depart(client)
        attachment.mark_gone()

    def close(self, sink: ClientSink, code: int | None, reason: str) -> None:
        """Close a client behind its answers; its disconnect follows when its socket is gone."""
        sink.close(code, reason)
        self._actor.mark_dirty(sink)

    def begin_ending(self) -> tuple[None, int]:
        """Turn newcomers away and disconnect everybody, each in a request of its own: others run in between."""
        self._is_ending = True
        for attachment in self._attachments:
            self._actor.post_nowait((None, partial(self._disconnect_last, attachment)))
        return None, 0

    def expel(self, code: int, reason: str) -> list[Callable[[], Steps[None] | None]]:
        """Return the requests that disconnect everybody who is connected and then close them all.

        From now on they hold no subscriptions.
        """
        expelled = list(self._clients.values())
        for attachment in expelled:
            assert attachment.subscriber is not None
            attachment.subscriber.close()
        return [
            *(partial(self._disconnect_last, attachment) for attachment in expelled),
            lambda: self._close_all(expelled, code, reason),
        ]

    def _close_all(self, attachments: Sequence[Attachment], code: int, reason: str) -> None:
        for attachment in attachments:
            self._drop(attachment, code, reason)

    def _disconnect_last(self, attachment: Attachment) -> Steps[None]:
        if attachment in self._attachments:
            yield from self.disconnect(attachment)
            self._attachments[attachment] = None  # to be closed when all are disconnected

    def _cut(self, attachment: Attachment) -> Steps[None]:
        """Disconnect a client that does not know it yet, and drop its socket."""
        yield from self.disconnect(attachment)
        self._drop(attachment, None, "another connection took its place")

    def _drop(self, attachment: Attachment, code: int | None, reason: str) -> None:
        self._attachments.pop(attachment, None)
        self.close(attachment.sink, code, reason)
        attachment.mark_gone()

    def depart(self, client: Client) -> Steps[None]:
        """Run `client_disconnected` and delete the client's rows; when it fails, delete them alone."""
        identity, connection_id, _ = client
        holder, credentials = self._credentials.get(connection_id, (b"", b""))
        if holder == identity:
            del self._credentials[connection_id]

        def delete(transaction: "Transaction") -> None:
            transaction.delete(self._client_table, identity + connection_id)
            if holder == identity:
                transaction.delete(self._credentials_table, credentials)

        transact = self._actor.transact_patiently
        entry = self._actor.reducers.lifecycle(Lifecycle.ON_DISCONNECT)
        outcome, _, _ = yield from transact(entry, client, connection_id, name=_ON_DISCONNECT, after=delete)
        if outcome is not COMMITTED:
            yield from transact(None, client, connection_id, name=_ON_DISCONNECT, after=delete)

    # ------------------------------------------------------------------ the last life
    def post_dangling(self) -> None:
        """Ask for the disconnect of every client that the last life left behind; before anybody attaches."""
        stored = {row[:16]: row for row in self._credentials_table.rows()}
        for row in self._client_table.rows():
            identity, connection_id = row[:32], row[32:]
            credentials = stored.get(connection_id, b"")
            if credentials:
                self._credentials[connection_id] = identity, credentials
            client = Client(identity, connection_id, credentials[20:].decode())
            self._actor.post_nowait((None, partial(self.depart, client)))
        self._actor.post_nowait((None, self._clear))

    def _clear(self) -> Steps[None]:
        """Forget what is left of them without running reducers (spec 07 section 5)."""

        def clear(_transaction: "Transaction") -> None:
            self._client_table.clear()
            self._credentials_table.clear()

        if len(self._client_table) or len(self._credentials_table):
            client = Client(self._actor.owner, bytes(16), "")
            yield from self._actor.transact_patiently(None, client, None, after=clear)
