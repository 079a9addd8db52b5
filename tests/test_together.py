"""Work that is shared out over maps: the same whether they are large or small."""

import threading

import numpy as np
import pytest

from distsep import Instrument, Observation
from distsep.data.together import each_map

NSIDE = 128  # 6 maps of it are more than what is worth a thread


def test_maps_come_back_in_their_order(monkeypatch):
    monkeypatch.setenv("NPROC", "3")
    for npix in (5, 2**18):
        maps = np.zeros((3, 2, npix))
        seen = set()

        def work(k, seen=seen):
            seen.add(threading.get_ident())
            return k

        assert each_map(work, maps) == list(np.ndindex(3, 2))
        here = threading.get_ident() in seen
        assert here == (npix == 5)


def test_what_one_map_raises_is_raised(monkeypatch):
    monkeypatch.setenv("NPROC", "3")

    def work(k):
        if k == (1, 1):
            raise ValueError("this one")

    for npix in (5, 2**18):
        with pytest.raises(ValueError, match="this one"):
            each_map(work, np.zeros((3, 2, npix)))


@pytest.mark.parametrize("cores", ["1", "3"])
def test_large_maps_are_put_in_order_and_back(monkeypatch, cores):
    """In RING, with pixels and samples that were not observed, and a unit."""
    monkeypatch.setenv("NPROC", cores)
    rng = np.random.default_rng(3)
    maps = rng.normal(size=(3, 2, 12 * NSIDE**2))
    maps[1, 0, 7::11] = np.nan
    maps[..., ::5] = np.nan
    instrument = Instrument(nu=[40.0, 95.0, 150.0], depth_p=[1.0, 1.0, 1.0])
    obs = Observation(maps, instrument, stokes="QU", nside=NSIDE, unit="mK_CMB")
    assert obs.npix == np.isfinite(maps).any((0, 1)).sum()
    np.testing.assert_allclose(obs.restore(obs.d), maps * 1e3, rtol=1e-15)


def test_one_infinite_value_of_large_maps_is_found():
    maps = np.ones((3, 2, 12 * NSIDE**2))
    maps[2, 1, -1] = np.inf
    instrument = Instrument(nu=[40.0, 95.0, 150.0], depth_p=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="infinite"):
        Observation(maps, instrument, stokes="QU", nside=NSIDE)
