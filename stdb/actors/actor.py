"""Actor: one owner of some state, a mailbox, and one task that takes requests one turn at a time.

Responsible for: the mailbox, waking the task, exactly one checkpoint a turn.
Not responsible for: what a request does (`turn` of the subclass), who restarts a dead actor (`supervision`).

Posting never blocks and never switches tasks: a deque and an Event that is set only when the actor sleeps
(DESIGN decision 8). A turn is synchronous: nothing sees half of it and no cancellation can cut it.
"""

from collections import deque
from typing import Generic, TypeVar

import trio

__all__ = ["Actor"]

Item = TypeVar("Item")


class Actor(Generic[Item]):
    """Base of everything with a mailbox and a task. Subclasses define `turn`."""

    def __init__(self) -> None:
        self._mailbox: deque[Item] = deque()
        self._wakeup = trio.Event()
        self._is_due = False
        self._stopping = False

    def post_nowait(self, item: Item) -> None:
        """Put `item` at the end of the mailbox."""
        self._mailbox.append(item)
        if not self._is_due:
            self.wake_nowait()

    def wake_nowait(self) -> None:
        """Have a turn soon, also with an empty mailbox (something else moved, e.g. durability)."""
        self._is_due = True
        self._wakeup.set()

    def stop_nowait(self) -> None:
        """End `run` once the mailbox is empty."""
        self._stopping = True
        self.wake_nowait()

    def turn(self) -> None:
        """Take some requests from the mailbox and serve them to their end."""
        raise AssertionError(f"{type(self).__name__} defines no turn")

    async def pause(self) -> None:
        """Let others run between two turns."""
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Serve turns until stopped. One checkpoint a turn; whatever a turn raises ends the actor."""
        while True:
            if self._is_due:
                await self.pause()
            else:
                await self._wakeup.wait()
            self._wakeup = trio.Event()
            self._is_due = False
            self.turn()
            if self._mailbox:
                self._is_due = True
            elif self._stopping and not self._is_due:
                return
