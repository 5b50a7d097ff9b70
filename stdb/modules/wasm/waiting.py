"""The functions of ABI 10.3 that procedures have: sleeping, transactions of their own, requests to other servers.

Responsible for: what each takes and returns, where each is refused.
Not responsible for: waiting (`procedures` answers what a guest waits for).

Reducers and views have these functions too, as a program imports them for all its functions: there they fail.

Source: spec 04 section 3.7.
"""

from typing import TYPE_CHECKING, NamedTuple

from stdb.errors import DecodeError
from stdb.modules.protocol import HttpRequest
from stdb.modules.wasm.http import decode_request
from stdb.modules.wasm.imports_10 import Errno
from stdb.modules.wasm.runtime import FunctionType, HostFunction, HostTrap, Wait

if TYPE_CHECKING:
    from stdb.modules.wasm.host import Host
    from stdb.modules.wasm.runtime import Imports

__all__ = ["WAITING", "Abort", "Commit", "Http", "Sleep", "StartTransaction", "waiting_functions"]

WAITING = frozenset(
    ("spacetime_10.3", f"procedure_{name}")
    for name in ("sleep_until", "start_mut_tx", "commit_mut_tx", "abort_mut_tx", "http_request")
)
"""Their modules and names."""

_PROCEDURES_ONLY = "this function is only available in async instances: in procedures, not in reducers and views"
_MICROS_MAX = 1 << 63


class Sleep(NamedTuple):
    """Wait until a moment. The answer is the time then, in microseconds."""

    until_us: int


class StartTransaction(NamedTuple):
    """Open a transaction; its time is to be written at `out`. The answer is an error number."""

    out: int


class Commit(NamedTuple):
    """Commit the transaction that was started."""


class Abort(NamedTuple):
    """Roll it back."""


class Http(NamedTuple):
    """Send a request; two sources are to be written at `out`. The answer is an error number."""

    request: HttpRequest
    out: int


def waiting_functions(host: "Host") -> "Imports":
    """Return these functions of one guest, by module and name."""
    functions = _Waiting(host)
    number, word = ("i32",), ("i64",)
    waits = host.is_procedure
    return {
        ("spacetime_10.3", "procedure_sleep_until"): HostFunction(FunctionType(word, word), functions.sleep, waits),
        ("spacetime_10.3", "procedure_start_mut_tx"): HostFunction(
            FunctionType(number, number), functions.start, waits
        ),
        ("spacetime_10.3", "procedure_commit_mut_tx"): HostFunction(FunctionType((), number), functions.commit, waits),
        ("spacetime_10.3", "procedure_abort_mut_tx"): HostFunction(FunctionType((), number), functions.abort, waits),
        ("spacetime_10.3", "procedure_http_request"): HostFunction(
            FunctionType(number * 5, number), functions.http, waits
        ),
    }


class _Waiting:
    def __init__(self, host: "Host") -> None:
        self._host = host

    def sleep(self, until_us: int) -> Wait:
        """Wait until a moment; one that is over is waited for no longer than it takes."""
        self._only_in_procedures()
        if self._host.expiry is not None:
            raise HostTrap("a procedure must not sleep while its transaction is open")
        return Wait(Sleep(until_us - 2 * _MICROS_MAX if until_us >= _MICROS_MAX else until_us))

    def start(self, out: int) -> Wait | int:
        """Open a transaction; write its time."""
        if self._host.expiry is not None:
            return Errno.WOULD_BLOCK_TRANSACTION
        self._only_in_procedures()
        self._host.memory.write_u64(out, 0)  # a bad pointer opens nothing
        return Wait(StartTransaction(out))

    def commit(self) -> Wait | int:
        """Commit it."""
        return self._end(Commit())

    def abort(self) -> Wait | int:
        """Roll it back."""
        return self._end(Abort())

    def _end(self, request: Commit | Abort) -> Wait | int:
        host = self._host
        if not host.is_procedure or host.expiry is None:
            return Errno.TRANSACTION_NOT_ANONYMOUS
        return Wait(request)

    def http(self, request_at: int, request_length: int, body_at: int, body_length: int, out: int) -> Wait | int:
        """Send a request; write sources of the response and its body, or of why there is none."""
        self._only_in_procedures()
        host = self._host
        memory = host.memory
        data, body = memory.read(request_at, request_length), memory.read(body_at, body_length)
        memory.read(out, 8)
        if host.expiry is not None:
            return Errno.WOULD_BLOCK_TRANSACTION
        try:
            return Wait(Http(decode_request(data, body), out))
        except DecodeError:
            return Errno.BSATN_DECODE_ERROR

    def _only_in_procedures(self) -> None:
        if not self._host.is_procedure:
            raise HostTrap(_PROCEDURES_ONLY)
