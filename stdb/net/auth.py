"""Authentication of a request: who asks, from its header or its query string.

Responsible for: where credentials stand, the classes of routes that look at them.
Not responsible for: whether a token holds (`tokens`), what an identity may do (`actors`, `stdb.storage.control`).

Source: spec 05 section 1.1 "Authorization input" and "Authorization classes".
"""

from enum import Enum

from stdb.errors import AuthError
from stdb.net.http import Request
from stdb.net.query import Query
from stdb.net.tokens import Credentials, MalformedTokenError, Tokens

__all__ = ["Access", "authenticate", "presented_token"]


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


async def authenticate(access: Access, request: Request, query: Query, tokens: Tokens) -> Credentials | None:
    """Return who asks; None where nobody needs to be known.

    Raises:
        AuthError: The token does not hold, or there is none and one is needed.
        MalformedTokenError: The header holds no token.
        QueryStringError: There are two `token` parameters and no header.
    """
    if access is Access.NONE:
        return None
    token = presented_token(request, query)
    if token is not None:
        return await tokens.validate(token)
    if access is Access.REQUIRED:
        raise AuthError("Authorization required")
    return tokens.mint() if access is Access.ANONYMOUS else None


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
