"""Recovery: a database's state from its log, at every start.

Responsible for: the order of recovery (07 section 8): newest snapshot that is durable, then every record after it.
Not responsible for: reading files (`stdb.storage`), the module and its clients (`stdb.actors`).
"""

from stdb.datastore.datastore import Datastore
from stdb.datastore.log import Log
from stdb.errors import StorageError

__all__ = ["recover"]


def recover(log: Log) -> Datastore:
    """Return the state after every durable transaction.

    Raises:
        StorageError: A record is damaged, missing or does not fit the one before; says where.
    """
    datastore = Datastore()
    log.snapshots().load_newest(datastore, log.durable)
    replay = datastore.replay
    for record in log.records(datastore.next_offset):
        replay(record)
    if datastore.next_offset != log.durable:
        raise StorageError(f"the log ends at offset {datastore.next_offset}, it said that it holds {log.durable}")
    return datastore
