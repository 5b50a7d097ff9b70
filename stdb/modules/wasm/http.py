"""HTTP as WebAssembly modules see it: requests and responses in BSATN.

Responsible for: the layout of both, both ways.
Not responsible for: who sends and receives them (`stdb.actors`, `stdb.net`).

Source: spec 04 section 3.7.
"""

from stdb.errors import DecodeError
from stdb.modules.protocol import HttpRequest, HttpResponse
from stdb.sats import bsatn
from stdb.sats.types import BYTES, STRING, TIME_DURATION, U16, UNIT, Array, Element, Product, Sum, option
from stdb.schema.model import STANDARD_HTTP_METHODS

__all__ = ["decode_request", "decode_response", "encode_request", "encode_response", "encode_text"]

_METHODS = tuple(name.upper() for name in STANDARD_HTTP_METHODS)
_METHOD = Sum((*(Element(name, UNIT) for name in STANDARD_HTTP_METHODS), Element("Extension", STRING)))
_VERSION = Sum(tuple(Element(name, UNIT) for name in ("Http09", "Http10", "Http11", "Http2", "Http3")))
_HEADERS = Product((Element("entries", Array(Product((Element("name", STRING), Element("value", BYTES))))),))
_REQUEST = bsatn.codec(
    Product(
        (
            Element("method", _METHOD),
            Element("headers", _HEADERS),
            Element("timeout", option(TIME_DURATION)),
            Element("uri", STRING),
            Element("version", _VERSION),
        )
    )
)
_RESPONSE = bsatn.codec(
    Product((Element("headers", _HEADERS), Element("version", _VERSION), Element("code", U16))),
)
encode_text = bsatn.codec(STRING).encode
"""Returns the BSATN of a text."""


def encode_request(request: HttpRequest) -> bytes:
    """Return a request without its body."""
    is_standard = request.method in _METHODS
    method = (_METHODS.index(request.method), ()) if is_standard else (len(_METHODS), request.method)
    headers = (list(request.headers),)
    return _REQUEST.encode((method, headers, request.timeout_us, request.url, (request.version, ())))


def decode_request(data: bytes, body: bytes) -> HttpRequest:
    """Return a request that a module makes. Raises DecodeError."""
    (tag, name), (headers,), timeout_us, url, (version, _) = _REQUEST.decode_exact(data)
    method = _METHODS[tag] if tag < len(_METHODS) else name
    return HttpRequest(method, url, tuple(headers), body, version, timeout_us)


def encode_response(response: HttpResponse) -> bytes:
    """Return a response without its body."""
    return _RESPONSE.encode(((list(response.headers),), (response.version, ()), response.status))


def decode_response(data: bytes, body: bytes) -> HttpResponse:
    """Return a response that a module gives. Raises DecodeError."""
    (headers,), (version, _), status = _RESPONSE.decode_exact(data)
    if not 100 <= status <= 999:
        raise DecodeError(f"{status} is no status of a response")
    return HttpResponse(status, tuple(headers), body, version)
