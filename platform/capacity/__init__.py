"""What a spec costs on a cluster, before it runs: hours, core-hours and the bottleneck of each phase."""

from parsecrl.platform.capacity.estimate import capacity_table

__all__ = ["capacity_table"]
