"""furax's likelihood on the arrays of a file; runs in the peers' environment.

Its value is -2 ln L without the constant d^T N^-1 d: halved here, the constant added.
"""

import importlib.metadata

import bench
import timing

task = bench.asked()
if task["task"] == "version":
    bench.answer(version=importlib.metadata.version("furax"))
    raise SystemExit

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from furax import DiagonalOperator  # noqa: E402
from furax.obs import negative_log_likelihood  # noqa: E402
from furax.obs.stokes import Stokes  # noqa: E402

jax.config.update("jax_enable_x64", True)

with np.load(task["data"]) as file:
    sky = {k: file[k] for k in file.files}
d = Stokes.from_stokes(q=jnp.asarray(sky["d"][:, 0]), u=jnp.asarray(sky["d"][:, 1]))
# One variance for Q and U: what its operator takes.
N = DiagonalOperator(jnp.asarray(sky["variance"][:, 0]), in_structure=d.structure)
NAMES = ("beta_dust", "temp_dust", "beta_pl")
START = (1.54, 20.0, -3.0)
patch = sky.get("patch")
if patch is None:
    params = {k: jnp.asarray(x) for k, x in zip(NAMES, START, strict=True)}
    indices = {f"{k}_patches": None for k in NAMES}
else:
    numbers = patch.max(1) + 1
    params = {k: jnp.full(n, x) for k, x, n in zip(NAMES, START, numbers, strict=True)}
    indices = {
        f"{k}_patches": jnp.asarray(p) for k, p in zip(NAMES, patch, strict=True)
    }

pass_ = jax.jit(
    jax.value_and_grad(
        lambda p, N, d: negative_log_likelihood(
            p,
            jnp.asarray(sky["nu"]),
            N,
            d,
            353.0,
            23.0,
            patch_indices=indices,
            analytical_gradient=True,
        )
    )
)
found = []


def step():
    """One value and gradient."""
    found[:] = jax.block_until_ready(pass_(params, N, d))


timed = timing.measure(step, task["repeats"], most=task["most"])
value, gradient = found
constant = float((sky["d"] ** 2 / sky["variance"]).sum())
bench.answer(
    timing=timed.to_dict(),
    value=0.5 * (float(value) + constant),
    gradient=[np.atleast_1d(gradient[k] / 2).tolist() for k in NAMES],
)
