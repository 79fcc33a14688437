"""Each claim of speed, beside what one would write instead, in one run."""
