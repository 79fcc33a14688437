"""`python -m sweeps.train`: see `sweeps.cli.train`."""

import sys

if __name__ == "__main__":  # nothing at import: a spawned process imports its parent's main module
    from sweeps.cli.train import main

    sys.exit(main())
