"""Credentials in the way of 0.11: Basic with the user name `token`, or the same text in the query.

Responsible for: where such credentials stand, what wins when there are two.
Not responsible for: whether a token holds (`tokens`), the classes of routes (`auth`).

Source: spec 03 sections 2 and 9. `Bearer`, which 0.11 did not know, is understood as well.
"""

import base64
import binascii

from stdb.net.http import Request
from stdb.net.query import Query
from stdb.net.tokens import MalformedTokenError

__all__ = ["legacy_token"]

_USER = b"token:"


def legacy_token(request: Request, query: Query) -> str | None:
    """Return the token of a request: the header's, else the query's; a query in order mends a header that is not.

    Raises:
        MalformedTokenError: There are credentials, and none of them holds a token.
    """
    header, text = request.headers.get("authorization"), query.text("token")
    if header is None and text is None:
        return None
    for token in (_of_header(header), _of_basic((text or "").encode())):
        if token is not None:
            return token
    raise MalformedTokenError


def _of_header(header: bytes | None) -> str | None:
    scheme, _, credentials = (header or b"").partition(b" ")
    if scheme.lower() == b"basic":
        return _of_basic(credentials.strip())
    token = credentials.strip()
    return token.decode() if scheme.lower() == b"bearer" and token and token.isascii() else None


def _of_basic(credentials: bytes) -> str | None:
    """Return the token of `base64("token:" + token)`."""
    try:
        decoded = base64.b64decode(credentials, validate=True)
    except (binascii.Error, ValueError):
        return None
    token = decoded.removeprefix(_USER)
    return token.decode() if decoded.startswith(_USER) and token and token.isascii() else None
