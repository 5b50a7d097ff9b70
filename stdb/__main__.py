"""`python -m stdb`: the command line."""

import sys

from stdb.cli import main

if __name__ == "__main__":
    sys.exit(main())
