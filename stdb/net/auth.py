"""Authentication of a request: who asks, from its header or its query string.

Responsible for: where credentials stand, the classes of routes that look at them.
Not responsible for: whether a token holds (`tokens`), what an identity may do (`actors`, `stdb.storage.control`).

Source: spec 05 section 1.1 "Authorization input" and "Authorization classes".
"""

from enum import Enum

from stdb.net.http import Request
from stdb.net.query import Query
from stdb.net.tokens import MalformedTokenError

__all__ = ["Access", "presented_token"]


class Access(Enum):
    """How a route looks at credentials."""

    NONE = 0
    """Not at all."""
    OPTIONAL = 1
    """A token that is there must hold; it is not used."""
    ANONYMOUS = 2
    """Without one a new identity is minted; every answer names the caller."""
    REQUIRED = 3
    """Without one the answer is 401."""


def presented_token(request: Request, query: Query) -> str | None:
    """Return the token of a request: the header's, else the query parameter's, else None.

    Raises:
        MalformedTokenError: The header holds no token; the query parameter is not consulted.
        QueryStringError: There are two `token` parameters and no header.
    """
    header = request.headers.get("authorization")
    if header is None:
        return query.text("token")
    scheme, _, token = header.partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token or not token.isascii():
        raise MalformedTokenError
    return token.decode("ascii")
