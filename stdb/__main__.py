"""`python -m stdb`: the command line."""

import sys

from stdb.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
