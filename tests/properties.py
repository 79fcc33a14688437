"""Property tests by hypothesis: the same examples in each run, and any time for each of them."""

from hypothesis import HealthCheck, settings

EXAMPLES = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""Decorator of a property test; its temporary folder is one for all examples."""
