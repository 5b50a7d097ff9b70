"""Answers that somebody awaits: handed over when the work is done, and durable where that was asked.

Responsible for: the results of HTTP calls and queries, waiting for them, failing them when the database dies.
Not responsible for: doing the work (`database`), answers to WebSocket requests (`sink`).
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

import trio

from stdb.actors.refusals import DatabaseUnavailable
from stdb.actors.sink import ReducerOutcome
from stdb.errors import RequestError
from stdb.sql.work import Steps

if TYPE_CHECKING:
    from stdb.sats.types import Product

__all__ = ["Answer", "Answers", "CallResult", "Job", "LongJob", "ProcedureOutcome", "SqlResult"]

Result = TypeVar("Result")
LongJob: TypeAlias = Steps[Callable[[], None] | None]
"""An evaluation in steps that returns what is to run in a turn when it is through, if anything; that is short."""
Job: TypeAlias = Callable[[], LongJob | None]
"""What a DatabaseActor's mailbox holds beside requests of clients."""


class CallResult(NamedTuple):
    """How a called reducer ended. COMMITTED, FAILED, FAULT and OUT_OF_TIME arrive here; the rest are exceptions."""

    outcome: ReducerOutcome
    duration_us: int
    energy: int = 0


class ProcedureOutcome(NamedTuple):
    """How a called procedure ended: COMMITTED when it returned, FAILED, FAULT or OUT_OF_TIME."""

    outcome: ReducerOutcome
    duration_us: int
    as_json: Callable[[], str] = str
    """Writes what it returned as JSON."""


class SqlResult(NamedTuple):
    """Rows of one statement, the receiver's own. `row_type` has the column names; `rows` are plain values."""

    row_type: "Product"
    rows: list[tuple[Any, ...]]
    duration_us: int
    inserted: int = 0
    deleted: int = 0
    updated: int = 0


class Answer(Generic[Result]):
    """A place for one result; the first of `give` and `fail` counts."""

    __slots__ = ("_error", "_event", "_result")

    def __init__(self) -> None:
        self._event = trio.Event()
        self._result: Result | None = None
        self._error: Exception | None = None

    def give(self, result: Result) -> None:
        """Hand over the result."""
        if not self._event.is_set():
            self._result = result
            self._event.set()

    def fail(self, error: Exception) -> None:
        """Hand over an exception."""
        if not self._event.is_set():
            self._error = error.with_traceback(None)  # which would hold all that the work held
            self._event.set()

    async def wait(self) -> Result:
        """Return the result or raise the exception once either is there; to be awaited once."""
        await self._event.wait()
        if self._error is not None:
            error, self._error = self._error, None  # raised, it refers to this frame: they would hold each other
            try:
                raise error
            finally:
                del error
        return self._result  # type: ignore[return-value]  # given, since the event is set and no error is


class Answers:
    """The answers one DatabaseActor owes. `post_nowait` puts a job in its mailbox."""

    def __init__(self, post_nowait: Callable[[tuple[None, Job]], None]) -> None:
        self._post_nowait = post_nowait
        self._owed: set[Answer[Any]] = set()
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._dead: str | None = None

    async def wait(self, work: Callable[[], tuple[Result, int]]) -> Result:
        """Run `work` in the actor's turn and return its result once `needs`, which it returns beside it, are durable.

        `needs` of 0 waits for nothing. A RequestError of `work` is raised here; anything else ends the actor.
        """
        return await self._owe(lambda answer: self.run(answer, work))

    async def wait_steps(self, work: Callable[[], Steps[tuple[Result, int]]]) -> Result:
        """Do as `wait` with work that is done in steps."""

        def start(answer: Answer[Result]) -> LongJob:
            result, needs = yield from work()
            self.give(answer, result, needs)
            return None

        return await self.wait_started(start)

    async def wait_started(self, start: Callable[[Answer[Result]], LongJob | None]) -> Result:
        """Run `start` in the actor's turn and return what it, the steps it returns, or what it started hands to `give`.

        A RequestError of `start` is raised here; anything else ends the actor.
        """
        return await self._owe(lambda answer: self._start(answer, start))

    def give(self, answer: Answer[Result], result: Result, needs: int) -> None:
        """Hand a result over once `needs` transactions are durable; within a turn."""
        if needs == 0:
            answer.give(result)
        else:  # in order of `needs`: each reflects every transaction before it
            self._waiting.append((needs, lambda: answer.give(result)))

    async def wait_long(self, work: Callable[[Callable[[], bool]], Steps[Callable[[], tuple[Result, int]]]]) -> Result:
        """Do as `wait` for an evaluation in steps that returns what is to run in a turn when it is through.

        `work` is given the function that tells whether anybody still waits.
        """
        return await self._owe(lambda answer: self._run_long(answer, work(lambda: answer in self._owed)))

    def settle(self, durable: int) -> None:
        """Hand over what waited for no more than `durable` transactions."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= durable:
            waiting.popleft()[1]()

    def fail_all(self, reason: str) -> None:
        """Tell everybody that the database is gone, those who ask later too."""
        self._dead = reason
        self._waiting.clear()
        for answer in self._owed:
            answer.fail(DatabaseUnavailable(reason))

    async def _owe(self, run: Callable[[Answer[Result]], LongJob | None]) -> Result:
        """Have `run` called in the actor's turn with a new answer; return what it is given."""
        if self._dead is not None:
            raise DatabaseUnavailable(self._dead)
        answer: Answer[Result] = Answer()
        self._owed.add(answer)
        try:
            self._post_nowait((None, lambda: run(answer)))
            return await answer.wait()
        finally:
            self._owed.discard(answer)

    def _run_long(self, answer: Answer[Result], steps: Steps[Callable[[], tuple[Result, int]]]) -> LongJob:
        try:
            last = yield from steps
        except RequestError as error:
            answer.fail(error)
            return None
        return lambda: self.run(answer, last)

    def run(self, answer: Answer[Result], work: Callable[[], tuple[Result, int]]) -> None:
        """Run `work` and hand its result over as `wait` says, or the RequestError that it raised; within a turn."""
        try:
            result, needs = work()
        except RequestError as error:
            answer.fail(error)
            return
        self.give(answer, result, needs)

    def _start(self, answer: Answer[Result], start: Callable[[Answer[Result]], LongJob | None]) -> LongJob | None:
        try:
            steps = start(answer)
        except RequestError as error:
            answer.fail(error)
            return None
        return None if steps is None else self._go_on(answer, steps)

    def _go_on(self, answer: Answer[Result], steps: LongJob) -> LongJob:
        try:
            return (yield from steps)
        except RequestError as error:
            answer.fail(error)
            return None
