"""Many simulated skies: are the errors right, and is there a bias?

    mpirun -n 4 python -m mpi4py launch/examples/many_skies.py 1000 skies.csv

Each rank separates skies of its own, alone: programs are compiled for the first one,
and a sky of nside 64 takes some hundredths of a second from then on. `sky` is what you
replace by your own simulations. One line of the table per sky: parameters, errors,
whether the fit converged, chi2 and degrees of freedom.
"""

import csv
import sys
from pathlib import Path

import numpy as np

import distsep

NSIDE = 64
INSTRUMENT = distsep.instrument("LiteBIRD")
COMPONENTS = [
    distsep.CMB(),
    distsep.Dust(nu0=353.0),
    distsep.Synchrotron(nu0=23.0),
]
TRUTH = {"Dust.beta_d": 1.54, "Dust.temp": 20.0, "Synchrotron.beta_pl": -3.0}
SIZES = 3.0, 10.0, 20.0  # of the amplitudes of Q and U [uK_CMB at nu0]


def sky(seed, nside=NSIDE):
    """Maps (freq, stokes, pix) [uK_CMB], RING: one sky with its noise."""
    rng = np.random.default_rng(seed)
    npix = 12 * nside**2
    s = rng.normal(size=(3, 2, npix)) * np.array(SIZES)[:, None, None]
    A = distsep.MixingMatrix(COMPONENTS, INSTRUMENT)(TRUTH)
    side = np.sqrt(4 * np.pi / npix) * 180 * 60 / np.pi  # of a pixel [arcmin]
    sigma = np.array(INSTRUMENT.depth_p) / side
    noise = rng.normal(size=(len(sigma), 2, npix)) * sigma[:, None, None]
    return np.einsum("fc,csp->fsp", A, s) + noise


def separate(seed, nside=NSIDE):
    """Row of one sky in the table."""
    observation = distsep.Observation(
        sky(seed, nside), INSTRUMENT, stokes="QU", nside=nside
    )
    result = distsep.separate(COMPONENTS, observation)
    return {
        "seed": seed,
        **{name: float(result.parameters[name]) for name in TRUTH},
        **{f"sigma {name}": float(result.sigma[name]) for name in TRUTH},
        "converged": result.converged,
        "chi2": result.chi2_total,
        "dof": result.dof,
    }


def separate_all(number, comm, nside=NSIDE):
    """Rows of all skies, in the order of their seeds, on rank 0; None elsewhere."""
    mine = [separate(seed, nside) for seed in range(comm.rank, number, comm.size)]
    gathered = comm.gather(mine)
    if gathered is None:
        return None
    return sorted((row for some in gathered for row in some), key=lambda r: r["seed"])


def pulls(rows):
    """(fitted - truth) / sigma of every sky, (sky, parameter)."""
    return np.array(
        [[(row[k] - v) / row[f"sigma {k}"] for k, v in TRUTH.items()] for row in rows]
    )


def main():
    """Share the skies out, write the table, say what the pulls are."""
    if len(sys.argv) != 3 or not sys.argv[1].isdecimal() or int(sys.argv[1]) < 1:
        sys.exit(__doc__)
    path = Path(sys.argv[2])
    if not path.absolute().parent.is_dir():
        sys.exit(f"{path}: there is no folder {path.parent}.")
    rows = separate_all(int(sys.argv[1]), distsep.parallel.world())
    if rows is None:
        return
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    print(f"{len(rows)} skies, {sum(row['converged'] for row in rows)} converged")
    found = pulls(rows)
    for name, mean, spread in zip(TRUTH, found.mean(0), found.std(0), strict=True):
        error = 1 / np.sqrt(len(rows))
        print(f"{name:>20}: pulls {mean:+.3f} +- {error:.3f}, spread {spread:.3f}")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
