"""`python -m bench.in_memory`: the command line, with logs in memory: what durability costs is the difference."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import stdb.storage.server_storage
from stdb.cli.main import main
from stdb.datastore.delta import Delta
from stdb.datastore.log import MemoryLog
from stdb.storage.retention import Retention


class _Log(MemoryLog):
    def __init__(self, path: Path, on_durable: Callable[[int], None], *, retention: Callable[[], Retention]) -> None:
        super().__init__(on_durable=on_durable)
        self.path = path
        if path in _LOGS:  # opened again: the first record was written by another
            self._records, self._durable = _LOGS[path]._records, _LOGS[path]._durable
        _LOGS[path] = self

    def append_nowait(self, records: Sequence[bytes], deltas: Sequence[Delta] = (), *, more: bool = False) -> None:
        super().append_nowait(records)


_LOGS: dict[Path, _Log] = {}

setattr(stdb.storage.server_storage, "SqliteLog", _Log)  # noqa: B010 - a name that the module only imports

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
