"""Replacing: another program takes the place of the one that a DatabaseActor runs, under its living clients.

Responsible for: one transaction that writes an update, who sees which part of it, taking the new module over.
Not responsible for: what an update changes and how it is planned (`updates`), disconnecting (`connections`), loading
programs (`launching`).

Source: spec 04 section 13; spec 03 section 8.1 for what modules of 0.11 run meanwhile.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from stdb.actors.connections import MODULE_EXITED
from stdb.actors.deadline import LoopWatch
from stdb.actors.long_calls import run_update_reducer
from stdb.actors.updates import COMPATIBLE, Policy, Update, environment_after, plan_update, store_environment
from stdb.datastore.delta import Delta
from stdb.datastore.environment import read_environment
from stdb.modules.protocol import Module
from stdb.schema.environment import UNCHANGED, EnvironmentChange
from stdb.sql.work import Steps
from stdb.subscriptions.fragment import TransactionEvent

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor
    from stdb.subscriptions.actor import SubscriptionActor

__all__ = ["Replacing"]

UPDATE_SECONDS_MAX = 600.0
"""As long as an update may take that writes large tables anew; all else stands still meanwhile."""


class Replacing:
    """The updates of one DatabaseActor."""

    def __init__(self, actor: "DatabaseActor") -> None:
        self._actor = actor

    def plan(self, module: Module) -> Update:
        """Return what an update to a module would do. Raises UpdateRejected, PublishFailed."""
        actor = self._actor
        return plan_update(actor.datastore, actor.identity, actor.module.definition, module)

    def update(
        self,
        module: Module,
        program: bytes,
        policy: Policy = COMPATIBLE,
        environment: EnvironmentChange = UNCHANGED,
        publisher: bytes | None = None,
    ) -> Steps[int]:
        """Swap the module under its living clients; return what must be durable before anybody is told.

        Environment variables may change though the program is the same: nobody is disconnected by that.

        Where what they hold may be none of theirs any more, all are disconnected, by the new module.

        Raises:
            UpdateRejected, PublishFailed: As said there; nothing changed.
        """
        actor = self._actor
        values = environment_after(actor.datastore, module.definition, environment)
        if module.program_hash != actor.module.program_hash:
            update = self.plan(module)
            update.check(policy)
            stranded = yield from self._write(update, program, values, publisher)
            self._take_over(update)
            for subscriber in stranded:
                actor.connections.close(subscriber.sink, *MODULE_EXITED)
            for line in update.lines():
                actor.module_log.write_host(line)
        elif values != read_environment(actor.datastore):
            yield from self._write_environment(values)
        return actor.datastore.next_offset

    def _write_environment(self, values: Mapping[str, str]) -> Steps[None]:
        actor, now_us = self._actor, self._actor.now_us()
        transaction = actor.datastore.begin(now_us)
        store_environment(actor.datastore, actor.module.definition, values)
        delta = yield from transaction.commit_in_steps()
        assert delta is not None, "the values are others"
        actor.publish(delta, TransactionEvent(actor.owner, None, now_us, needs=actor.datastore.next_offset))
        actor.module_log.write_host("Environment variables updated")

    def _write(
        self, update: Update, program: bytes, values: Mapping[str, str], publisher: bytes | None
    ) -> "Steps[set[SubscriptionActor]]":
        """Write an update and take over its views, so that their readers see the difference with this transaction.

        Who may not see rows any more is told none of it: lets go of all or, as those who are returned, of a query.
        """
        actor, now_us = self._actor, self._actor.now_us()
        datastore = actor.datastore
        LoopWatch.expect(UPDATE_SECONDS_MAX)
        transaction = datastore.begin(now_us)
        try:
            limit = partial(actor.deadline.limiting, what="the migration")
            update.write(transaction, datastore, program, values, self._attach, limit)
            event = yield from run_update_reducer(actor, update.module, transaction, now_us, publisher)
        except BaseException:
            transaction.rollback()
            raise
        actor.views.install(update.module)
        is_seen = bool(event.reducer_name) and not update.changes_rows
        if update.breaks_clients or (event.reducer_name and update.changes_rows):
            actor.serve_first(actor.connections.expel(*MODULE_EXITED))
        stranded = yield from actor.registry.recompile_in_steps()
        delta = yield from transaction.commit_in_steps()
        assert delta is not None, "the row of st_module is a change"
        event.needs = datastore.next_offset
        actor.publish(delta, event, seen=delta if is_seen else _without_moves(delta))
        return stranded

    def _attach(self, module: Module) -> None:
        module.attach(self._actor.datastore, self._actor.identity, self._actor.module_log)

    def _take_over(self, update: Update) -> None:
        """Serve with the new module; what still runs of the old one goes on only where it can read every row."""
        if update.changes_rows:
            self._actor.layouts += 1
        elif update.steps:
            self._attach(self._actor.module)
        self._actor.install(update.module)


def _without_moves(delta: Delta) -> Delta:
    """Return an update's delta as clients see it: rows of a table that got another id are where they were."""
    return Delta(delta.offset, [each for each in delta.tables if each.table.schema.is_system], delta.views)
