"""Queued calls: what functions of a module ask to have called soon (`volatile_nonatomic_schedule_immediate`).

Responsible for: calling each once, in order, as the database itself; forgetting all when it stops.
Not responsible for: transactions (`database`), rows of scheduled tables (`scheduler`).

Whatever becomes of the transaction that asked: the call is made. It is in no log, so a stop forgets it.

Source: spec 04 section 3.6.
"""

from functools import partial
from typing import TYPE_CHECKING

from stdb.actors.sink import Client
from stdb.modules.protocol import LogLevel, Module, Queueing
from stdb.sql.work import Steps

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor

__all__ = ["WAITING_MAX", "QueuedCalls"]

WAITING_MAX = 10_000
"""Calls that may wait; more are dropped, which the module's log tells."""


class QueuedCalls:
    """The queued calls of one database."""

    def __init__(self, actor: "DatabaseActor") -> None:
        self._actor = actor
        self._client = Client(actor.identity, bytes(16), "")
        self._waiting = 0

    def serve(self, module: Module) -> None:
        """Take the calls that a module asks for."""
        if isinstance(module, Queueing):
            module.immediate = self._add

    def _add(self, name: str, args: bytes) -> None:
        if self._waiting >= WAITING_MAX:
            self._tell(name, f"dropped: {WAITING_MAX} calls are waiting already")
            return
        self._waiting += 1
        self._actor.post_nowait((None, partial(self._run, name, args)))

    def _run(self, name: str, args: bytes) -> Steps[None]:
        self._waiting -= 1
        actor = self._actor
        entry = actor.reducers.by_name.get(name)
        if entry is not None and entry.definition.lifecycle is None:
            yield from actor.transact_patiently(entry, self._client, None, args)
            return
        procedure_id = actor.module.definition.procedure_id(name)
        if procedure_id is None:
            self._tell(name, "there is no such reducer or procedure")
        else:
            actor.procedures.start_scheduled(procedure_id, args, actor.now_us(), lambda: None)

    def _tell(self, name: str, why: str) -> None:
        self._actor.module_log.write(LogLevel.ERROR, f"the queued call of `{name}` was not made: {why}", function=name)
