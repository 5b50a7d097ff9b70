"""v1: what its binary and its JSON form have in common, above the layout of messages.

Responsible for: who is told what of a reducer call (spec 02 sections 6.3 and 10.1), full and light updates.
Not responsible for: the bytes (`v1_bsatn`) and texts (`v1_json`) of messages, requests (`v1_requests`).
"""

from abc import abstractmethod
from collections.abc import Callable

from stdb.actors.requests import CallReducer, Request
from stdb.actors.sink import OutcomeKind, ReducerOutcome
from stdb.net.outbox import Outbox
from stdb.net.protocols.dialect import ConnectionOptions, Dialect
from stdb.net.protocols.v1_requests import decode_request
from stdb.schema.model import ModuleDef
from stdb.subscriptions.fragment import ClientUpdate, TransactionEvent

__all__ = ["V1"]

_EMPTY_UPDATE = ClientUpdate(())


class V1(Dialect):
    """One client that speaks a form of v1."""

    __slots__ = ("_full_key",)
    CONFIRMED_BY_DEFAULT = False

    def __init__(self, outbox: Outbox, options: ConnectionOptions, definition: Callable[[], ModuleDef]) -> None:
        super().__init__(outbox, options, definition)
        self._full_key = f"full {self._frame_key}"

    def receive(self, message: bytes | str, requests: list[Request]) -> None:
        """Append the one request of `message`, binary or text."""
        requests.append(decode_request(message))

    def reducer_result(
        self, call: CallReducer, outcome: ReducerOutcome, event: TransactionEvent, update: ClientUpdate | None
    ) -> None:
        """Answer the caller with a full update; with NoSuccessNotify only when the call could not run at all."""
        if outcome.kind == OutcomeKind.NOT_RUN:
            text = outcome.text_chain or outcome.text
            self._append((0, self._failed(_not_run(event), text)))
        elif outcome.kind == OutcomeKind.COMMITTED:
            if call.notify_success:
                self._append((self._needs(event.needs), self._full_frame(event, update)))
            elif update is not None:
                self.update(event, update)
        elif call.notify_success:
            out_of_time = outcome.kind == OutcomeKind.OUT_OF_TIME
            frame = self._out_of_energy(event) if out_of_time else self._failed(event, outcome.text)
            self._append((self._needs(event.needs), frame))

    def _update_frame(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        """Return the light update, unless an old module shows its calls to all."""
        if not self._light and not self._definition().abi_is_v10:
            return self._full_frame(event, update)
        frame: bytes | None = update.cache.get(self._frame_key)
        if frame is None:
            frame = update.cache[self._frame_key] = self._light_update(event, update)
        return frame

    def _full_frame(self, event: TransactionEvent, update: ClientUpdate | None) -> bytes:
        """Return the full update; the caller's and the other clients' are the same bytes."""
        if update is None:
            return self._committed(event, _EMPTY_UPDATE)
        frame = update.cache.get(self._full_key)
        if frame is None:
            frame = update.cache[self._full_key] = self._committed(event, update)
        return frame

    @abstractmethod
    def _committed(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        """Return the frame of a TransactionUpdate with its rows."""

    @abstractmethod
    def _failed(self, event: TransactionEvent, text: str) -> bytes:
        """Return the frame of a TransactionUpdate that failed."""

    @abstractmethod
    def _out_of_energy(self, event: TransactionEvent) -> bytes:
        """Return the frame of a TransactionUpdate that was stopped."""

    @abstractmethod
    def _light_update(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        """Return the frame of a TransactionUpdateLight."""


def _not_run(event: TransactionEvent) -> TransactionEvent:
    """Return what the reference says of a call that was not run: request id 0, no arguments, no cost."""
    return TransactionEvent(
        caller=event.caller,
        caller_connection_id=event.caller_connection_id,
        timestamp_us=event.timestamp_us,
        reducer_name=event.reducer_name,
        reducer_id=event.reducer_id,
        args_json="[]",
    )
