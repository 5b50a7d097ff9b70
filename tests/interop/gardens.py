"""The gardens of `rust_modules/`: one module as each generation of the official crate spells it."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.interop.module_cargo import build_module

__all__ = ["Garden", "versions"]


class Garden(NamedTuple):
    """A version of the crate, and how its modules speak."""

    version: str

    @property
    def is_0_11(self) -> bool:
        """Tell whether it is of that generation."""
        return self.version == "0.11.1"

    @property
    def is_2(self) -> bool:
        """Tell whether it is of that generation."""
        return self.version.startswith("2.")

    @property
    def module(self) -> str:
        """Return which of the gardens in `rust_modules` it is."""
        return "garden_0_11" if self.is_0_11 else "garden_2" if self.is_2 else "garden_1"

    def path(self, *features: str) -> Path:
        """Return where the program is."""
        later = ("later",) if self.version == "1.12.0" else ()
        return build_module(self.module, self.version, *later, *features)

    def build(self, *features: str) -> bytes:
        """Return the program."""
        return self.path(*features).read_bytes()

    def table(self, name: str) -> str:
        """Return what a table is called: `CountU8` in 0.11, `count_u8` in 1.x, `count_u_8` later."""
        if self.is_0_11:
            return name
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        return re.sub(r"(?<=[a-z])(?=[0-9])", "_", name) if self.is_2 else name

    def error(self, text: str) -> str:
        """Return a text as the crate hands it on."""
        return f'"{text}"' if self.is_0_11 else text

    def who(self, wire: bytes) -> Any:
        """Return an identity or address as rows have it."""
        return (wire[::-1],) if self.is_0_11 else wire


def versions(*names: str) -> Any:
    """Return versions of the crate as parameters; one of them is in the default share."""
    return [pytest.param(Garden(it), id=it, marks=() if it == "2.8.3" else pytest.mark.long) for it in names]
