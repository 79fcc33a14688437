"""`python -m sweeps.status`: see `sweeps.cli.status`."""

import sys

if __name__ == "__main__":  # nothing at import: a spawned process imports its parent's main module
    from sweeps.cli.status import main

    sys.exit(main())
