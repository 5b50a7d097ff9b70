"""`python -m tests.crash_server`: the command line, with a log that merges, moves and forgets at every opportunity."""

import sys

from stdb.cli.main import main
from stdb.storage import log_writer, merging
from stdb.storage.retention import Retention
from stdb.storage.truncation import Truncation

__all__ = ["KEPT_BYTES", "hurry"]

KEPT_BYTES = 64 * 1024
WRITER = {
    "IDLE_SECONDS": 0.02,
    "CHECKPOINT_BYTES": 256 * 1024,
    "RETENTION_SECONDS": 0.1,
    "WINDOW_TRANSACTIONS": 200,
    "WINDOW_CHANGES": 500,
}


def hurry() -> None:
    """Let windows be small, steps of merging smaller, and the log short."""
    for name, value in WRITER.items():
        assert hasattr(log_writer, name), name
        setattr(log_writer, name, value)
    assert merging.STEP_CHANGES_MIN < 48 < merging.STEP_CHANGES_MAX
    merging.STEP_CHANGES_MAX = 48
    step = Truncation.step

    def keep_little(self: Truncation, _retention: Retention, rows_offset: int, now_us: int) -> bool:
        return step(self, Retention(size=KEPT_BYTES), rows_offset, now_us)

    Truncation.step = keep_little  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    hurry()
    sys.exit(main(sys.argv[1:]))
