"""Environment variables of a module: texts that a publisher sets, and that are no part of the program.

Responsible for: the declaration `environment_variable`, `ctx.env`.
Not responsible for: which values there may be (`stdb.schema.environment`), what a name leads to
(`stdb.modules.environment`).

Source: spec 09 section 5.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stdb.modules.python.declarations import VariableDeclaration, caller_module, caller_place, register, report
from stdb.schema.environment import CHOICES_MAX, VALUE_BYTES_MAX, is_variable_name

if TYPE_CHECKING:
    from stdb.modules.environment import Environment
    from stdb.modules.python.reader import Reading

__all__ = ["Variables", "environment_variable"]


def environment_variable(name: str, *, optional: bool = False, choices: Iterable[str] | None = None) -> str:
    """Let the module's functions read an environment variable, `ctx.env[name]`; return its name.

    It stands at the top level of a module. Who publishes sets the value, `publish --env NAME=VALUE`; without one the
    module cannot be published, unless the variable is `optional`. With `choices` it is one of these texts.
    """
    texts = None if choices is None else tuple(choices)
    mistake = _mistake(name, texts)
    if mistake is None:
        register(VariableDeclaration(name, optional, texts, caller_module(), caller_place()))
    else:
        report(caller_place(), mistake)
    return name


def _mistake(name: object, choices: tuple[object, ...] | None) -> str | None:
    if not isinstance(name, str) or not is_variable_name(name):
        return f"an environment variable cannot be called {name!r}: letters, digits and `_`, no digit first"
    if choices is None:
        return None
    if not 1 <= len(choices) <= CHOICES_MAX:
        return f"the environment variable {name} has {len(choices)} choices; 1 to {CHOICES_MAX} are possible"
    for text in choices:
        if not isinstance(text, str) or len(text.encode("utf-8", "surrogatepass")) > VALUE_BYTES_MAX:
            return f"the choices of the environment variable {name} are texts of at most {VALUE_BYTES_MAX} bytes"
    return None


class Variables:
    """The environment variables that the module declares, as texts; it reads them, who publishes sets them."""

    __slots__ = ("_environment", "_reading")

    def __init__(self, environment: "Environment", reading: "Reading | None" = None) -> None:
        self._environment = environment
        self._reading = reading

    def get(self, name: str) -> str | None:
        """Return a value; None where an optional variable has none.

        Raises:
            KeyError: The module does not declare the name.
        """
        reading = self._reading
        if reading is not None:
            reading.check()
        try:
            return self._environment.get(name, None if reading is None else reading.reads)
        except LookupError as error:
            raise KeyError(*error.args) from None

    def __getitem__(self, name: str) -> str:
        """Return a value.

        Raises:
            KeyError: The module does not declare the name, or an optional variable has no value.
        """
        value = self.get(name)
        if value is None:
            raise KeyError(f"the environment variable {name} has no value; ctx.env.get returns None then")
        return value

    def __repr__(self) -> str:
        """Return the names; never a value."""
        return f"<environment: {', '.join(self._environment.names()) or 'nothing'}>"
