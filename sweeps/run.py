"""`python -m sweeps.run`: see `sweeps.cli.run`."""

import sys

if __name__ == "__main__":  # nothing at import: a spawned process imports its parent's main module
    from sweeps.cli.run import main

    sys.exit(main())
