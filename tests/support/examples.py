"""How many examples the property tests try: few in `just test`, many in `just prove-properties`."""

import os

from hypothesis import HealthCheck, settings

VARIABLE = "PROPERTY_EXAMPLES"
"""Environment variable: how many times as many examples are tried, other ones in every run."""
TIMES = int(os.environ.get(VARIABLE, "1"))


def examples(count: int) -> settings:
    """Settings for so many examples in `just test`, where every run tries the same ones."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        deadline=None,  # a busy machine is no failure
        suppress_health_check=[HealthCheck.too_slow],
    )
