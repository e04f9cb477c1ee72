"""`python -m textcl` is the `textcl` command."""

import sys

from textcl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
