"""The command line with a server that takes every module for one of the time before V10.

Servers of 1.x, and modules built for them, tell v1 clients who called what; Python modules are V10 and do not.
"""

import sys
from dataclasses import replace

import stdb.server
from stdb.cli.main import main
from stdb.modules.protocol import Module

_load = stdb.server.load_program


def load_as_v9(program: bytes) -> Module:
    """Return the module of a program, its definition marked as V9."""
    module = _load(program)
    module.definition = replace(module.definition, abi_is_v10=False)
    return module


if __name__ == "__main__":
    stdb.server.load_program = load_as_v9
    sys.exit(main())
