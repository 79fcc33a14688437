"""`python -m sweeps.check`."""

import sys

from sweeps.check.command import main

if __name__ == "__main__":
    sys.exit(main())
