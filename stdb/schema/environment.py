"""Environment variables: what a module may read of its surroundings, and what a publisher may set.

Responsible for: the rules of names, values and declarations; an update of the values as a whole.
Not responsible for: where values are stored (`stdb.datastore`), how they are sent (`stdb.net`), reading them
(`stdb.modules.environment`).

Texts never hold a value, nor a name that has not been checked.

Source: spec 09 sections 5.1 and 5.2.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stdb.errors import SchemaError
from stdb.schema.model import EnvironmentVariableDef

__all__ = [
    "CHOICES_MAX",
    "NAME_BYTES_MAX",
    "UNCHANGED",
    "VALUES_MAX",
    "VALUE_BYTES_MAX",
    "EnvironmentChange",
    "VariableError",
    "is_variable_name",
    "updated",
]

NAME_BYTES_MAX = 256
VALUE_BYTES_MAX = 8192
VALUES_MAX = 256
"""Values of one database, declared or not."""
CHOICES_MAX = 256
"""Texts of which the value of one variable is one."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class VariableError(SchemaError):
    """The values that would result are none that the module or a database can have."""

    def __init__(self, text: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__([text])
        self.missing = missing
        """Names of the required variables that have no value."""


@dataclass(frozen=True, slots=True)
class EnvironmentChange:
    """What a publisher changes: first `removes` go, then `values` come. `removes`: None for all."""

    values: Mapping[str, str] = field(default_factory=dict)
    removes: tuple[str, ...] | None = ()


UNCHANGED = EnvironmentChange()
"""All values stay."""


def is_variable_name(name: str) -> bool:
    """Tell whether an environment variable may have this name."""
    return len(name) <= NAME_BYTES_MAX and _NAME.fullmatch(name) is not None


def updated(
    old: Mapping[str, str], change: EnvironmentChange, declared: Iterable[EnvironmentVariableDef] | None
) -> dict[str, str]:
    """Return the values after a change, checked against what the module that will read them declares.

    Raises:
        VariableError: They cannot be these; names every required variable that is missing.
    """
    _check_change(change)
    kept = {} if change.removes is None else {name: old[name] for name in old if name not in change.removes}
    values = kept | dict(change.values)
    if len(values) > VALUES_MAX:
        raise VariableError("too many stored values")
    missing = []
    for variable in declared or ():
        value = values.get(variable.name)
        if value is None:
            if not variable.is_optional:
                missing.append(variable.name)
        elif variable.choices is not None and value not in variable.choices:
            raise _refused(variable.name, "value does not satisfy its declared string constraint")
    if missing:
        texts = (f'environment key "{name}": required value is missing' for name in missing)
        raise VariableError("; ".join(texts), tuple(missing))
    return values


def _check_change(change: EnvironmentChange) -> None:
    removes = change.removes or ()
    if not all(map(is_variable_name, (*change.values, *removes))):
        raise VariableError("invalid name")
    if len(removes) > VALUES_MAX or len(change.values) > VALUES_MAX:
        raise VariableError("too many stored values")
    for position, name in enumerate(removes):
        if name in change.values or name in removes[:position]:
            raise _refused(name, "conflicting environment update operations")
    for name, value in change.values.items():
        if len(value.encode("utf-8", "surrogatepass")) > VALUE_BYTES_MAX:
            raise _refused(name, "value exceeds size limit")


def _refused(name: str, text: str) -> VariableError:
    return VariableError(f'environment key "{name}": {text}')
