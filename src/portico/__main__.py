"""`python -m portico` does what `portico` does."""

import sys

from portico.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
