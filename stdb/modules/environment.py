"""Environment: what a running module reads of its environment variables.

Responsible for: which names a module may read, noting what a view has read.
Not responsible for: which values there may be (`stdb.schema.environment`), changing them (`stdb.actors`).

Source: spec 09 section 4, `env_get`.
"""

from typing import TYPE_CHECKING

from stdb.schema.system_tables import ENVIRONMENT_TABLE_ID

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.modules.protocol import ReadSet
    from stdb.schema.model import ModuleDef

__all__ = ["Environment"]

_PROGRAM_HASH = 3
"""The column of `st_module`."""


class Environment:
    """The values of one database as one program may read them."""

    __slots__ = ("_datastore", "_declared", "_program_hash", "_seen")

    def __init__(self, definition: "ModuleDef", program_hash: bytes, datastore: "Datastore") -> None:
        self._declared = {variable.name: variable.is_optional for variable in definition.environment or ()}
        self._program_hash = int.from_bytes(program_hash, "little")
        self._datastore = datastore
        self._seen: bytes | None = None
        """The row of `st_module` that was found to name this program."""

    def get(self, name: str, reads: "ReadSet | None" = None) -> str | None:
        """Return a value, None where an optional variable has none. `reads` is told, so that its view is run again.

        Raises:
            LookupError: The module does not declare the name, a required value is missing, or another program has
                taken over while a procedure of this one ran.
        """
        self._check_program()
        if name not in self._declared:
            raise LookupError(f'environment key "{name}" is not declared by this module')
        table = self._datastore.tables[ENVIRONMENT_TABLE_ID]
        if reads is not None:
            assert table.primary is not None, "its key is its primary key"
            reads.add_key(ENVIRONMENT_TABLE_ID, table.primary.id, name)
        row = table.stored.get(name)
        if row is None:
            if self._declared[name]:
                return None
            raise LookupError(f'environment key "{name}": required value is missing')
        value: str = table.schema.codec.decode_exact(row)[1]
        return value

    def names(self) -> tuple[str, ...]:
        """Return the names that the module declares."""
        return tuple(self._declared)

    def _check_program(self) -> None:
        """Raise LookupError where the database runs another program by now."""
        table = self._datastore.table("st_module")
        row = next(iter(table.rows()), None)
        if row is self._seen or row is None:
            return
        if table.schema.codec.decode_exact(row)[_PROGRAM_HASH] != self._program_hash:
            raise LookupError("the database was updated while this ran; its environment is not this program's any more")
        self._seen = row
