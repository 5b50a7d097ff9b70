"""Calls: which reducer a name means to a caller, its arguments as BSATN, and how a call that failed is told.

Responsible for: looking reducers up, JSON arguments, outcomes, their texts (spec 02 section 11.2), log lines.
Not responsible for: transactions and who is told (`database`), running module code (`stdb.modules`).
"""

import re
import traceback
from collections.abc import Callable
from typing import NamedTuple

from stdb.actors.arguments import arguments_from_json
from stdb.actors.requests import Arguments
from stdb.actors.sink import OutcomeKind, ReducerOutcome
from stdb.errors import DecodeError, ModuleFault, ReducerError, ReducerTimeout
from stdb.modules.protocol import LogLevel, LogSink, Module, ReducerCall, Suspending
from stdb.schema.model import Lifecycle, ReducerDef, Visibility
from stdb.sql.work import Steps

__all__ = [
    "COMMITTED",
    "NO_SUCH_REDUCER",
    "RUN_ERRORS",
    "ReducerEntry",
    "Reducers",
    "bad_arguments",
    "tell_fault",
    "written_arguments",
]

COMMITTED = ReducerOutcome(OutcomeKind.COMMITTED)
NO_SUCH_REDUCER = ReducerOutcome(OutcomeKind.NOT_RUN, "no such reducer", "no such reducer")
RUN_ERRORS = (DecodeError, ReducerError, ModuleFault, ReducerTimeout)
"""What a module's entry raises (`stdb.modules.protocol.Module.reducer`); anything else is a bug of ours."""

_LIFECYCLE_NAMES = {Lifecycle.INIT: "Init", Lifecycle.ON_CONNECT: "OnConnect", Lifecycle.ON_DISCONNECT: "OnDisconnect"}
_IN_JSON = re.compile(r"\$(.*?): (.*)", re.DOTALL)
"""The text of a mismatch: where in the document, what it is."""
_HOST = "__spacetimedb__"
_GENERATE = "have you run `spacetime generate` recently?"


class ReducerEntry(NamedTuple):
    """One reducer, ready to be called."""

    name: str
    id: int
    definition: ReducerDef
    run: Callable[[ReducerCall, bytes], None]
    start: Callable[[ReducerCall, bytes], Steps[None] | None] | None = None
    """Runs it as `run` does, but may come back early with the rest; None where it cannot."""


class Reducers:
    """The reducers of one loaded module. `log` is told of calls that cannot run and of those that fail."""

    def __init__(self, module: Module, owner: bytes, log: LogSink) -> None:
        self._definition = module.definition
        self._is_reserved = module.definition.is_reserved
        self._owner = owner
        self._log = log
        self.by_name = {
            definition.name: ReducerEntry(definition.name, i, definition, module.reducer(i), _starter(module, i))
            for i, definition in enumerate(module.definition.reducers)
        }
        self.public = {
            name: entry
            for name, entry in self.by_name.items()
            if entry.definition.lifecycle is None
            and entry.definition.visibility is Visibility.CLIENT_CALLABLE
            and not module.definition.is_reserved(name)
        }
        """What every client may call by name: one look-up on the hot path."""
        self._lifecycle = {entry.definition.lifecycle: entry for entry in self.by_name.values()}

    def lifecycle(self, event: Lifecycle) -> ReducerEntry | None:
        """Return the reducer for `event`."""
        return self._lifecycle.get(event)

    def find(self, name: str, caller: bytes) -> ReducerEntry | ReducerOutcome:
        """Return the reducer that `name` means to `caller`, or why it cannot be called."""
        entry = self.by_name.get(name)
        is_reserved = self._is_reserved(name)
        if entry is not None and entry.definition.lifecycle is not None and not is_reserved:
            text = f"can't directly call special {_LIFECYCLE_NAMES[entry.definition.lifecycle]} lifecycle reducer"
            return ReducerOutcome(OutcomeKind.NOT_RUN, text, text)
        is_hidden = entry is not None and entry.definition.visibility is Visibility.PRIVATE and caller != self._owner
        if entry is None or is_hidden or is_reserved:
            self._tell(f'External attempt to call nonexistent reducer "{name}" failed. H{_GENERATE[1:]}', name)
            return NO_SUCH_REDUCER
        return entry

    def tell_no_procedure(self, name: str) -> None:
        """Log that no procedure has this name either: over HTTP it is tried after the reducers."""
        self._tell(f'External attempt to call nonexistent procedure "{name}" failed. H{_GENERATE[1:]}', name)

    def encode_args(self, entry: ReducerEntry, args: str | Arguments) -> bytes:
        """Return the BSATN of arguments written as a JSON array or object, or in a form of their own.

        Raises:
            DecodeError: The text is no JSON, or does not fit the parameters.
        """
        params = entry.definition.params
        if not isinstance(args, str):
            return args.bsatn(params, self._definition.typespace)
        return arguments_from_json(params, args, self._definition)

    def bad_arguments(self, entry: ReducerEntry, error: DecodeError, *, is_json: bool) -> ReducerOutcome:
        """Return the outcome of a call whose arguments do not decode; v1 and HTTP tell the whole chain."""
        self._tell(
            f'External attempt to call reducer "{entry.name}" failed, invalid arguments.\n'
            f"This is likely due to a mismatched client schema, {_GENERATE}",
            entry.name,
        )
        return bad_arguments("reducer", entry.name, error, is_json=is_json)

    def failed(self, entry: ReducerEntry, error: BaseException) -> ReducerOutcome:
        """Return the outcome of a call whose entry raised `error`, one of RUN_ERRORS, and log what the owner needs."""
        if isinstance(error, DecodeError):
            return self.bad_arguments(entry, error, is_json=False)
        if isinstance(error, ReducerTimeout):
            self._tell(str(error) or "the reducer ran too long and was stopped", entry.name)
            return ReducerOutcome(OutcomeKind.OUT_OF_TIME, "reducer ran out of energy", "reducer ran out of energy")
        text = _sendable(error)
        if isinstance(error, ReducerError):
            self._tell(text, entry.name)
            return ReducerOutcome(OutcomeKind.FAILED, text, text)
        assert isinstance(error, ModuleFault)
        tell_fault(self._log, error, entry.name)
        return ReducerOutcome(OutcomeKind.FAULT, text, text)

    def view_failed(self, name: str, error: BaseException) -> str:
        """Log that a view raised `error`, one of RUN_ERRORS or a QueryError; return the text for who asks for it."""
        if isinstance(error, ModuleFault):
            tell_fault(self._log, error, name)
        else:
            self._tell(_sendable(error) or "the view ran too long and was stopped", name)
        return "view ran out of energy" if isinstance(error, ReducerTimeout) else _sendable(error)

    def _tell(self, message: str, function: str) -> None:
        self._log.write(LogLevel.ERROR, message, target=_HOST, filename=_HOST, function=function)


def _starter(module: Module, reducer_id: int) -> Callable[[ReducerCall, bytes], Steps[None] | None] | None:
    return module.reducer_steps(reducer_id) if isinstance(module, Suspending) else None


def written_arguments(args: bytes | str | Arguments) -> str | None:
    """Return what a caller wrote in JSON; None when it called in bytes."""
    if isinstance(args, bytes):
        return None
    return args if isinstance(args, str) else args.text


def bad_arguments(kind: str, name: str, error: DecodeError, *, is_json: bool) -> ReducerOutcome:
    """Return the outcome of a call whose arguments do not decode, in the reference's words up to the detail.

    Of JSON the text says the path alone: `.` for all of it, else such as `[0].name`. The chain, which v1 and HTTP tell,
    says what is wrong there as well.
    """
    where, last = str(error), str(error)
    if is_json:
        found = _IN_JSON.fullmatch(where)
        where = (found[1] if found else "") or "."
        last = f"{where}: {found[2] if found else last}"
    text = f"invalid arguments for {kind} {name}: {where}"
    return ReducerOutcome(OutcomeKind.NOT_RUN, text, f"{text}: invalid arguments for function {name}: {where}: {last}")


def _sendable(error: BaseException) -> str:
    """Return the text of an error as a message can carry it: a module may raise what none can."""
    return str(error).encode("utf-8", "replace").decode()


def tell_fault(log: LogSink, fault: ModuleFault, function: str) -> None:
    """Log what a module's owner sees of a fault: the module's report, or a traceback where it made none."""
    report = fault.report or "".join(traceback.format_exception(fault.__cause__ or fault)).rstrip()
    log.write(LogLevel.PANIC, report, filename=fault.filename, line=fault.line, function=function, trace=fault.trace)
