"""Monopoles of real surveys: what their offsets do to a separation, and the cure.

    python launch/examples/gsm.py gsm2016_..._ring_uKRJ.npz gsm.png

The sky is GSM 2016 at the bands of WMAP and Planck up to 353 GHz: a smooth rank-6
reconstruction of real surveys at 5 degrees, without noise of its own and with monopoles
that nobody calibrated; so no chi2 is quoted. White noise of 2 uK_CMB per pixel of
nside 16 and known monopoles in eight bands are added, and the sky is separated

- as it is,                       with a free monopole in these bands,
- with the monopoles added,       with a free monopole in these bands,
- with the monopoles added,       without.

The file is numpy's, of `freq_ghz` (band,) [GHz] and `maps` (band, pix) [uK_RJ, RING]:
what a program for the model of Zheng et al. (2017), MNRAS 464, 3486, such as pygdsm's
GlobalSkyModel16, gives at 22.8, 33, 40.7, 60.8 and 93.5 GHz (WMAP) and at 30, 44, 70,
100, 143, 217 and 353 GHz (Planck), smoothed to 5 degrees.

The noise is the same, so the first two must agree in everything but the monopoles,
whose difference must be what was added. The third shows what goes wrong without.
"""

import sys
from pathlib import Path

import healpy
import matplotlib as mpl
import numpy as np

import distsep

NSIDE = 16
NOISE = 2.0  # uK_CMB per pixel
# Added [uK_CMB], by band [GHz].
ADDED = {
    "33": 30.0,
    "40.7": -20.0,
    "44": 15.0,
    "60.8": -10.0,
    "70": 12.0,
    "100": -8.0,
    "143": 6.0,
    "217": 10.0,
}


def sky(path, nside=NSIDE):
    """Maps (freq, 1, pix) [uK_CMB, RING] with noise, their instrument and a mask."""
    with np.load(path) as file:
        nu, maps = file["freq_ghz"], file["maps"].astype(float)
    order = np.argsort(nu)
    order = order[nu[order] < 400]
    instrument = distsep.Instrument(nu=nu[order], depth_i=np.ones(len(order)))
    to_cmb = instrument.conversion("uK_RJ", "uK_CMB")[:, None]
    maps = healpy.ud_grade(list(maps[order] * to_cmb), nside)
    noise = NOISE * np.random.default_rng(2016).normal(size=np.shape(maps))
    x, y, z = healpy.pix2vec(nside, np.arange(12 * nside**2))
    return (np.array(maps) + noise)[:, None], instrument, np.abs(z) > 0.34


def separate(maps, instrument, used, terms):
    """Fit CMB, dust and synchrotron (one low-frequency law) off the Galactic plane."""
    observation = distsep.Observation(
        maps,
        instrument,
        stokes="I",
        nside=healpy.npix2nside(maps.shape[-1]),
        noise_variance=np.full((len(maps), 1, 1), NOISE**2),
        observed=used,
    )
    laws = [
        distsep.CMB(),
        distsep.Dust(353.0, temp=19.6),
        distsep.Synchrotron(22.8),
    ]
    return distsep.separate(laws, observation, global_terms=terms, solver="newton")


def three_fits(path, nside=NSIDE):
    """As it is and with monopoles, both fitted for them; and without. By name."""
    maps, instrument, used = sky(path, nside)
    spoiled = maps.copy()
    for band, value in ADDED.items():
        spoiled[instrument.bands.index(band)] += value
    terms = [distsep.Monopole(bands=list(ADDED))]
    return {
        "as it is": separate(maps, instrument, used, terms),
        "with": separate(spoiled, instrument, used, terms),
        "without": separate(spoiled, instrument, used, []),
    }


def recovered(fits):
    """Difference of the fitted monopoles of the two skies, and one error [uK_CMB]."""
    before, after = fits["as it is"].global_terms, fits["with"].global_terms
    names = [f"monopole.{band}" for band in ADDED]
    difference = [float(after[n][0]) - float(before[n][0]) for n in names]
    return np.array(difference), np.array([float(after[n][1]) for n in names])


def picture(fits, path):
    """Added and recovered monopoles; what the CMB map changes with and without."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.titleweight": "bold"})
    figure = plt.figure(figsize=(13, 7.6))
    axes = figure.add_axes((0.07, 0.57, 0.88, 0.34))
    at, (values, errors) = np.arange(len(ADDED)), recovered(fits)
    axes.bar(at, list(ADDED.values()), color="0.85", label="added")
    axes.errorbar(
        at, values, errors, fmt="o", color="#1f4e79", label="recovered", capsize=4
    )
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_xticks(at, [f"{band} GHz" for band in ADDED])
    axes.set_ylabel("monopole [µK_CMB]")
    axes.legend(frameon=False)
    figure.suptitle(
        "GSM 2016 in twelve bands of WMAP and Planck: monopoles added in eight of them",
        weight="bold",
    )
    before = fits["as it is"].amplitudes[0, 0]
    limit = np.nanpercentile(np.abs(fits["without"].amplitudes[0, 0] - before), 98)
    for n, name in enumerate(("with", "without")):
        change = fits[name].amplitudes[0, 0] - before
        rms = np.sqrt(np.nanmean(change**2))
        healpy.mollview(
            np.where(np.isfinite(change), change, healpy.UNSEEN),
            fig=figure.number,
            sub=(2, 2, 3 + n),
            title=f"change of the CMB, fitted {name} monopoles: rms {rms:.2g} µK_CMB",
            min=-limit,
            max=limit,
            cmap="RdBu_r",
            format="%.2g",
        )
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return Path(path)


def main():
    """Print the monopoles and the indices, and draw."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    fits = three_fits(sys.argv[1])
    print(f"{'band':>6} {'added':>8} {'recovered':>10} {'sigma':>7}  [uK_CMB]")
    values = zip(ADDED.items(), *recovered(fits), strict=True)
    for (band, added), value, error in values:
        print(f"{band:>6} {added:8.2f} {value:10.4f} {error:7.3f}")
    for name, fit in fits.items():
        found = ", ".join(
            f"{k} = {fit.parameters[k]:.4f} +- {fit.sigma[k]:.4f}"
            for k in fit.parameters
        )
        print(f"{name:>9}: {found}; {fit.message}")
    print(f"wrote {picture(fits, sys.argv[2])}")


if __name__ == "__main__":
    main()
