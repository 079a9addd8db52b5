"""Separations that must give the same bits however they are cut: for `test_bits.py`.

As a program, `python bits.py OUT DEVICES ...`, it runs them on all ranks and these
numbers of devices, and rank 0 writes what they found.
"""

import sys
from functools import cache

import numpy as np

DEVICES = (1, 2)
NU = (40.0, 60.0, 90.0, 120.0, 160.0, 240.0, 350.0)
SKIES = {  # pixels; both are no multiple of a block of 4096
    "reduced": 20_011,  # a data set smaller than the sky, one value per patch
    "pixel": 20_011,  # every pixel has its own noise
    "idle": 7_001,  # two blocks: with three ranks or more some have no pixels
}
FOUND = ("parameters", "covariance", "hessian_inverse", "chi2_total", "counts")
MAPS = ("amplitudes", "chi2")


@cache
def sky(case):
    """The whole observation: a part of the sky at nside 64."""
    import distsep

    rng = np.random.default_rng(70)
    npix = SKIES[case]
    cells = np.sort(rng.choice(12 * 64**2, npix, replace=False))
    depth = np.array([30.0, 20.0, 12.0, 8.0, 9.0, 14.0, 40.0])
    instrument = distsep.Instrument(nu=NU, depth_p=depth)
    A = distsep.MixingMatrix(laws(), instrument)(
        {"Dust.beta_d": 1.54, "Synchrotron.beta_pl": -3.0}
    )
    s = rng.normal(size=(3, 2, npix)) * np.array([50.0, 10.0, 100.0])[:, None, None]
    maps = np.einsum("fc,csp->fsp", np.asarray(A), s)
    maps += rng.normal(size=maps.shape) * depth[:, None, None] / 55
    maps[rng.random(maps.shape) < 1e-3] = np.nan
    maps[0, :, : npix // 3] = np.nan
    noise = {"hits": rng.uniform(0.5, 2, npix), "hits_norm": "max"}
    if case == "pixel":
        noise = {"noise_variance": rng.uniform(0.1, 0.4, maps.shape)}
    return distsep.Observation(
        maps,
        instrument,
        stokes="QU",
        nside=64,
        ordering="NEST",
        cell_ids=cells,
        **noise,
    )


def laws():
    import distsep

    return [distsep.CMB(), distsep.Dust(150.0, temp=20.0), distsep.Synchrotron(20.0)]


def part(case, comm):
    """What one rank holds of the sky: whole chunks of blocks, perhaps none."""
    return sky(case).share(comm).replace(caller_index=None)


def separate(case, comm, devices, observation=None, output=None):
    """What is found: `FOUND` of the whole sky, `MAPS` of this rank's pixels.

    With `output`, `MAPS` of all pixels, from there.
    """
    import distsep

    result = distsep.separate(
        laws(),
        part(case, comm) if observation is None else observation,
        patches={"Dust.beta_d": 4, "Synchrotron.beta_pl": 1},
        start={"Dust.beta_d": 1.5},
        reduce=True if case == "reduced" else None if case == "pixel" else False,
        max_steps=8,  # of Adam, beside the warm start: the solver is not the point
        comm=comm,
        devices=devices,
        output=output,
    )
    maps = result if output is None else distsep.read(output)
    return {
        "parameters": np.concatenate([np.ravel(v) for v in result.parameters.values()]),
        "covariance": result.covariance,
        "hessian_inverse": result.hessian_inverse,
        "chi2_total": np.array(result.chi2_total),
        "counts": np.array([result.dof, result.steps, result.converged]),
        "amplitudes": maps.amplitudes,
        "chi2": maps.chi2,
    }


def main(out, *numbers):
    """Run everything on all ranks."""
    from distsep.parallel import world

    comm = world()
    arrays = {}
    for case in SKIES:
        for devices in map(int, numbers):
            found = separate(case, comm, devices)
            for name in MAPS:
                pieces = comm.gather(found[name])
                found[name] = np.concatenate(pieces, -1) if pieces else np.zeros(0)
            arrays |= {f"{case} {devices} {name}": x for name, x in found.items()}
    if comm.rank == 0:
        np.savez(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
