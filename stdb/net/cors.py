"""Cross-origin headers: what every answer below `/v1` tells a browser.

Responsible for: the headers of spec 05 section 1.1 "CORS", the answer to OPTIONS.
Not responsible for: which paths have them (`routing`).
"""

from stdb.net.http import Response

__all__ = ["CORS", "preflight"]

CORS = (
    ("vary", "origin, access-control-request-method, access-control-request-headers"),
    ("access-control-allow-origin", "*"),
)
"""No credentials mode and nothing exposed: browsers get their token in the first WebSocket message."""


def preflight(allow: str) -> Response:
    """Return the answer to OPTIONS on a known path, which no handler ever sees; `allow` is empty for any method."""
    headers: tuple[tuple[str, str], ...] = (
        ("access-control-allow-methods", "*"),
        ("access-control-allow-headers", "authorization,accept,content-type"),
    )
    return Response(200, (*headers, ("allow", allow)) if allow else headers)
