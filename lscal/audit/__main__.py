"""`python -m lscal.audit`."""

import sys

from lscal.audit.command import main

if __name__ == "__main__":
    sys.exit(main())
