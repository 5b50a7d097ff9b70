"""From the words of the command line to the function of a command, and from what stops it to an exit code."""

import contextlib
import os
import sys
from collections.abc import Sequence

from stdb.cli.errors import CliError
from stdb.cli.parser import build_parser

__all__ = ["main"]

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 success, 1 an error, 2 wrong usage, 130 interrupted."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except CliError as error:
        sys.stdout.flush()
        print(error.render(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # who read our output has left
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
