"""Where the work runs: ranks (`comm`) and the devices of one rank (`mesh`).

Nothing here knows what a pixel or a component is.
"""

from distsep.parallel.comm import (
    Comm,
    launched_by_mpi,
    launched_rank,
    library,
    serial,
    world,
)
from distsep.parallel.failure import guard
from distsep.parallel.mesh import (
    device_mesh,
    over_blocks,
    over_shares,
    replicate,
    set_host_devices,
    single,
    spread,
    spread_maps,
)
from distsep.parallel.threads import cores, one_blas_thread, share_cores

# Before JAX starts its threads.
share_cores()

__all__ = [
    "Comm",
    "cores",
    "device_mesh",
    "guard",
    "launched_by_mpi",
    "launched_rank",
    "library",
    "one_blas_thread",
    "over_blocks",
    "over_shares",
    "replicate",
    "serial",
    "set_host_devices",
    "single",
    "spread",
    "spread_maps",
    "world",
]
