"""`python -m sweeps.run [TASK …]` sweeps ε for each task and publishes the recommended one. See `command.py`."""

import sys

if __name__ == "__main__":  # nothing at import: the scribe's process imports its parent's main module
    from sweeps.command import main

    sys.exit(main())
