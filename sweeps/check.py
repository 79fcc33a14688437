"""`python -m sweeps.check`: see `sweeps.cli.check`."""

import sys

if __name__ == "__main__":  # nothing at import: a spawned process imports its parent's main module
    from sweeps.cli.check import main

    sys.exit(main())
