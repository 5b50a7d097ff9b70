"""The procedures and routes of the recorded module `kitchen`: what they do."""

from collections.abc import Awaitable, Callable
from math import nan
from typing import Any

from stdb.datastore.datastore import Datastore
from stdb.modules.protocol import HttpRequest, HttpResponse, ProcedureCall, ReducerCall, RouteCall

__all__ = ["PROCEDURES", "ROUTES"]

ONE = (1).to_bytes(32, "little")
SOMEBODY = bytes.fromhex("c200b3ce65d91b79ecfb7d881cd65bf8da2f647d590af1474ad19faa7aa87e38")[::-1]
NUMBERED = bytes(range(16, 0, -1))
RED, GREEN, BLUE = (0, ()), (1, ()), (2, ())
EVERY = (
    *(9, True, 127, 255, 32767, 65535, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 2**127 - 1, 2**128 - 1),
    *(2**255 - 1, 2**256 - 1, 1.5, 1e300, 'héllo "q" \\ \n tab\t 🚀', b"\x00\x01\xab\xff"),
    *(SOMEBODY, NUMBERED, 1737665769123456, -1_500_000, NUMBERED, (0, 1_000_000)),
    *(BLUE, (1, (1, -2)), (3, -4), ("n", (5, 6), ["a", "b"]), ()),
    *(9, "some", (7, 8), (None,), (0, 5)),
    *([1, -2, 3], ["x", "y z"], [True, False], [1, None], [(1, 2)], [GREEN, RED], [b"\x01\x02", b""], [ONE]),
)
RETURNED: dict[str, Any] = {
    "ret_u_32": 7,
    "ret_u_64": 2**64 - 1,
    "ret_u_256": 255,
    "ret_i_256": -255,
    "ret_i_128": -(2**127),
    "ret_f_64": 0.5,
    "ret_nan": nan,
    "ret_bool": True,
    "ret_string": "s",
    "ret_bytes": b"\x01\xff",
    "ret_point": (1, 2),
    "ret_color": GREEN,
    "ret_shape": (0, 1.5),
    "ret_opt": 3,
    "ret_none": None,
    "ret_vec": [(1, 2)],
    "ret_identity": ONE,
    "ret_ts": 5,
    "ret_uuid": (1).to_bytes(16, "little"),
    "ret_unit": (),
    "ret_res": (1, "e"),
    "ret_every": EVERY,
    "ret_at": (0, 5),
    "ret_conn": (3).to_bytes(16, "little"),
    "proc_tick": (),
}


def _returning(value: Any) -> Callable[..., Awaitable[Any]]:
    async def run(_call: ProcedureCall, _datastore: Datastore, *_args: Any) -> Any:
        return value

    return run


async def p_add(_call: ProcedureCall, _datastore: Datastore, a: int, b: int) -> int:
    return (a + b) % 2**32


async def p_panic(_call: ProcedureCall, _datastore: Datastore) -> None:
    raise ValueError("procedure panics")


async def p_tx(call: ProcedureCall, datastore: Datastore, a: int) -> int:
    plain = datastore.table("plain")

    def insert(tx: ReducerCall) -> int:
        tx.transaction.insert(plain, plain.schema.codec.encode((a, 77)))
        return len(plain)

    return await call.host.transact(insert)


PROCEDURES: dict[str, Callable[..., Awaitable[Any]]] = {
    **{name: _returning(value) for name, value in RETURNED.items()},
    "p_add": p_add,
    "p_panic": p_panic,
    "p_tx": p_tx,
}


async def h_get(_call: RouteCall, _request: HttpRequest) -> HttpResponse:
    return HttpResponse(200, (), b"got")


async def h_echo(_call: RouteCall, request: HttpRequest) -> HttpResponse:
    lines = [f"{request.method} {request.url}".encode()]
    lines += [name.encode() + b": " + value for name, value in request.headers]
    return HttpResponse(418, (("x-made", b"yes"),), b"\n".join([*lines, b"", request.body]))


async def h_panic(_call: RouteCall, _request: HttpRequest) -> HttpResponse:
    raise ValueError("handler panics")


ROUTES: dict[str, Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]] = {
    "h_get": h_get,
    "h_echo": h_echo,
    "h_panic": h_panic,
}
