"""What a control group may use, and what it used, as records keep it; `loadlab.target.process` sets
it, `record.cgroup` reads it."""

import msgspec

PERIOD_US = 100_000
"""The quota's period, microseconds: Docker's and Kubernetes's default, so that a limit here is the
limit that users know."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a group may use; None is without limit."""

    cpus: float | None = None
    """Cores' worth of CPU time per period: 0.5 is 50 ms in every 100 ms."""
    memory_bytes: int | None = None
    period_us: int = PERIOD_US
    """Of the quota: a short period stops the group for a shorter time, and more often."""
    burst_us: int = 0
    """CPU time that a group may save up while it is idle and use beyond one period's quota later;
    at most the quota."""

    @property
    def quota_us(self) -> int | None:
        """CPU time in each period."""
        return None if self.cpus is None else round(self.cpus * self.period_us)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time in seconds since the group was made, and how often the quota stopped it."""

    cpu_s: float
    user_s: float
    system_s: float
    periods: int = 0
    throttled_periods: int = 0
    throttled_s: float = 0.0

    def since(self, before: "Usage") -> "Usage":
        """What was used between two readings."""
        names = self.__struct_fields__
        return Usage(**{name: getattr(self, name) - getattr(before, name) for name in names})


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory in bytes. `kinds` are the kernel's names; which there are depends on the version."""

    current_bytes: int
    peak_bytes: int
    kinds: dict[str, int]
    limit_hits: int = 0
    """How often a charge met the limit; version 1 of kernel 6.18 was seen not to count."""
    oom_kills: int = 0
