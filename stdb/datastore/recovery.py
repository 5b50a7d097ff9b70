"""Recovery: a database's state from its log, at every start.

Responsible for: the order of recovery (07 section 8): newest snapshot that is durable, then every record after it.
Not responsible for: reading files (`stdb.storage`), the module and its clients (`stdb.actors`).
"""

from collections.abc import Iterator
from itertools import islice

from stdb.datastore.datastore import Datastore
from stdb.datastore.log import Log
from stdb.errors import StorageError

__all__ = ["recover", "recover_in_slices"]

_RECORDS_AT_ONCE = 64


def recover(log: Log) -> Datastore:
    """Return the state after every durable transaction; the log's stored rows follow it from now on.

    Raises:
        StorageError: A record is damaged, missing or does not fit the one before; says where.
    """
    datastore = Datastore()
    for _ in recover_in_slices(datastore, log):
        pass
    return datastore


def recover_in_slices(datastore: Datastore, log: Log) -> Iterator[None]:
    """Do the same to a fresh datastore in slices of a millisecond or so, between which others may run."""
    yield from log.snapshots().load_newest(datastore, log.durable)
    replay, records = datastore.replay, iter(log.records(datastore.next_offset))
    for first in records:
        record = first
        try:
            replay(record)
            for record in islice(records, _RECORDS_AT_ONCE):
                replay(record)
        except StorageError as error:
            if datastore.next_offset != record.offset:  # the next one could not be read, and it is said where
                raise
            raise log.refusal(record.offset, str(error).removeprefix(f"offset {record.offset}: ")) from error
        yield
    if datastore.next_offset != log.durable:
        raise log.refusal(datastore.next_offset, f"the log ends here, it said that it holds {log.durable} transactions")
    log.follow(datastore.take_tail())
