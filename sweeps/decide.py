"""`python -m sweeps.decide`: see `sweeps.cli.decide`."""

import sys

if __name__ == "__main__":  # nothing at import: a spawned process imports its parent's main module
    from sweeps.cli.decide import main

    sys.exit(main())
