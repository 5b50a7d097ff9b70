"""v3.bsatn: v2's messages, any number of them in one client payload.

Responsible for: splitting client payloads (spec 02 section 9).
Not responsible for: the messages (`v2_bsatn`).

Server payloads hold one message each, which is legal and lets frames be shared with v2 clients; frames that may
leave together are joined into one send by the outbox anyway.
"""

from stdb.actors.requests import Request
from stdb.errors import DecodeError
from stdb.net.protocols.v2_bsatn import V2Bsatn, decode_message

__all__ = ["V3Bsatn"]


class V3Bsatn(V2Bsatn):
    """One client that speaks v3.bsatn."""

    __slots__ = ()
    NAME = "v3.bsatn.spacetimedb"
    _TEXT_REFUSED = "v3 websocket does not support text messages"

    def receive(self, message: bytes | str, requests: list[Request]) -> None:
        """Append every request of `message`, in order."""
        if type(message) is not bytes:
            raise DecodeError(self._TEXT_REFUSED)
        if not message:
            raise DecodeError("v3 websocket binary payload must contain at least one v2 client message", 0)
        offset = 0
        end = len(message)
        while offset < end:
            request, offset = decode_message(message, offset)
            requests.append(request)
