"""`python -m sweeps.worker`: see `sweeps.cli.worker`."""

import sys

if __name__ == "__main__":  # nothing at import: a spawned process imports its parent's main module
    from sweeps.cli.worker import main

    sys.exit(main())
