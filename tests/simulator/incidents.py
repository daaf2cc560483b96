"""The table of all builders of incidents; each module it takes them from owns the rows of its kind."""

from collections.abc import Mapping

from simulator import (
    incident_endpoints,
    incident_leaks,
    incident_limits,
    incident_locks,
    incident_pileups,
    incident_pools,
    incident_storms,
)
from simulator.scenario import Builder

BUILDERS: Mapping[str, Builder] = {
    **incident_leaks.BUILDERS,
    **incident_pools.BUILDERS,
    **incident_pileups.BUILDERS,
    **incident_locks.BUILDERS,
    **incident_storms.BUILDERS,
    **incident_limits.BUILDERS,
    **incident_endpoints.BUILDERS,
}
