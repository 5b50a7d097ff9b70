"""What the rules of one validation share: the definition, its types, the names that are taken, the findings.

Responsible for: the namespaces of one module; one common form of V9 and V10.
Not responsible for: the rules (`tables`, `functions`, `attachments`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from stdb.errors import SchemaError
from stdb.schema.client_types import TypeChecker
from stdb.schema.findings import Findings, Group
from stdb.schema.naming import Namer
from stdb.schema.raw import RawModuleDefV10

__all__ = ["DERIVED_MAX", "SYSTEM_PREFIX", "Scope"]

SYSTEM_PREFIX = "st_"
"""No table and no view of a user is called so."""
DERIVED_MAX = 16 * 1024 * 1024
"""Characters of all names that are derived from columns; two bytes of a definition can ask for a long one."""


@dataclass(slots=True)
class Scope:
    """One module under validation. `names_are_final` (V8, V9): names given are canonical, none is derived instead."""

    raw: RawModuleDefV10
    names_are_final: bool
    namer: Namer
    types: TypeChecker
    findings: Findings
    is_0_11: bool = False
    """The module is one of 0.11 (V8)."""
    derived_left: int = DERIVED_MAX
    """Characters of derived names that the module may still need."""
    entities: set[str] = field(default_factory=set)
    """Names of tables, indexes, constraints, sequences, schedules and views."""
    functions: set[str] = field(default_factory=set)
    """Names of reducers, procedures and views."""

    def take_entity(self, name: str, alias: str | None = None) -> bool:
        """Take a name, and an alias beside it, for an entity; note it and return False when it is taken."""
        wanted = {name} if alias is None else {name, alias}
        taken = wanted & self.entities
        for text in taken:
            self.findings.add(Group.NAME, f"name `{text}` is used for multiple entities")
        self.entities |= wanted
        return not taken

    def spend(self, names: Sequence[str]) -> None:
        """Count the characters of a derived name before it is made; SchemaError when all are too many."""
        self.derived_left -= sum(map(len, names))
        if self.derived_left < 0:
            text = f"the names of indexes and constraints have more than {DERIVED_MAX} characters altogether"
            raise SchemaError([*self.findings.texts(), text])

    def take_function(self, name: str) -> bool:
        """Take a name for a function; note it and return False when it is taken."""
        if name in self.functions:
            text = f"Name {name} is used for multiple reducers, procedures and/or views"
            self.findings.add(Group.NAME, text)
            return False
        self.functions.add(name)
        return True

    def identify(self, source: str, canonical: str) -> bool:
        """Note what keeps a name, as written or canonical, from being an identifier; tell whether nothing does."""
        return self.findings.add_identifier(source) and self.findings.add_identifier(canonical)
