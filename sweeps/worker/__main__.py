"""`python -m sweeps.worker` trains for a sweep which `sweeps.run` conducts, from anywhere. See `join`."""

import sys

from sweeps.worker.join import main

sys.exit(main())
