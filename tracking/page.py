"""`python -m tracking.page`: see `tracking.report.page`."""

import sys

if __name__ == "__main__":  # nothing at import: a spawned process imports its parent's main module
    from tracking.report.page import main

    sys.exit(main())
