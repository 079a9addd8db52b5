"""Arguments of the wrong kind, and ranks that were asked different things."""

import bits
import jaxtyping
import numpy as np
import pytest

import distsep
from distsep.agreement import require_one_call
from distsep.parallel import device_mesh

NU = np.array([40.0, 60.0, 90.0, 120.0, 160.0, 240.0, 350.0])
LAWS = [distsep.CMB(), distsep.Dust(150.0, temp=20.0), distsep.Synchrotron(20.0)]
NPIX = 48


def observe(cells=None, **changes):
    """Noise on a known sky: of all pixels of nside 2, or of some."""
    rng = np.random.default_rng(81)
    maps = rng.normal(size=(7, 2, NPIX))
    given = {"stokes": "QU", "nside": 2, "ordering": "NEST", "noise_variance": 1.0}
    cells = np.arange(NPIX) if cells is None else np.asarray(cells, int)
    return distsep.Observation(
        maps[..., cells],
        distsep.Instrument(NU),
        cell_ids=cells,
        **given | changes,  # pyright: ignore[reportArgumentType]
    )


PRIOR = {"Dust.beta_d": (1.5, 0.1), "Synchrotron.beta_pl": (-3.0, 0.1)}


@pytest.fixture(scope="module")
def fitted():
    return distsep.separate(LAWS, observe(), priors=PRIOR, solver="newton")


@pytest.fixture
def untyped(monkeypatch):
    """What a user meets: the types of arguments are checked in tests only."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"comm": "world"}, r"`separate\(comm=...\)`: expected .*world\(\).*got str"),
        ({"devices": "2"}, "expected a number of devices"),
        ({"devices": [0]}, "expected a number of devices"),
        ({"devices": 1.0}, "expected a number of devices"),
        ({"residuals": np.ones(3)}, "`residuals` should be True or False, got array"),
        ({"overwrite": "yes"}, "`overwrite` should be True or False, got 'yes'"),
        ({"output": 5}, "`output` should be the path of a directory, got 5"),
        ({"tell": "me"}, "`tell` should be a function .* got 'me'"),
        ({"amplitude_covariance": 3}, "`amplitude_covariance` should be names among"),
        ({"amplitude_covariance": "CMB"}, "`amplitude_covariance` should be names"),
    ],
)
def test_what_is_none_is_said(wrong, words):
    with pytest.raises((ValueError, TypeError), match=words):
        distsep.separate(LAWS, observe(), **wrong)


def test_nothing_is_nothing(fitted):
    """`None` where something may be left out is the same as leaving it out."""
    result = distsep.separate(
        LAWS,
        observe(),
        priors=PRIOR,
        solver="newton",
        amplitude_covariance=None,
        output=None,
        tell=None,
        comm=None,
        devices=None,
    )
    np.testing.assert_array_equal(result.amplitudes, fitted.amplitudes)
    assert result.amplitude_covariance is None


@pytest.mark.usefixtures("untyped")
def test_whole_numbers_of_any_kind_count_devices():
    assert device_mesh(np.int64(1)).size == 1
    with pytest.raises(ValueError, match="a number of devices"):
        device_mesh(True)


def test_weights_on_what_is_no_observation(fitted):
    for what in (np.ones((7, 2, NPIX)), "sky.zarr", None):
        with pytest.raises(TypeError, match=r"`apply\(observation\)`: expected"):
            fitted.apply(what)


@pytest.mark.parametrize("cells", [[], np.arange(47), np.arange(1, 48)])
def test_weights_on_maps_that_lack_pixels(fitted, cells):
    with pytest.raises(ValueError, match="lack pixels that were fitted"):
        fitted.apply(observe(cells))


def test_weights_on_a_store_of_more_pixels(tmp_path):
    """Maps in memory were fitted, those of a store are weighed, and the reverse."""
    some = np.arange(5, 40, 2)
    observe().save(tmp_path / "sky.zarr")
    store = distsep.open_observation(tmp_path / "sky.zarr")
    result = distsep.separate(LAWS, observe(some), priors=PRIOR, solver="newton")
    applied = result.apply(store)
    np.testing.assert_array_equal(applied.cell_ids, some)
    np.testing.assert_array_equal(
        applied.amplitudes, result.apply(observe(some)).amplitudes
    )
    np.testing.assert_allclose(applied.amplitudes, result.amplitudes, rtol=1e-9)
    stored = distsep.separate(LAWS, store, priors=PRIOR, solver="newton")
    np.testing.assert_allclose(
        stored.apply(observe()).amplitudes, stored.amplitudes, rtol=1e-9
    )


def test_what_did_not_converge_says_why():
    """At a bound the distance is none: it is not what is wrong."""
    bounds = {"Dust.beta_d": (1.7, 1.8), "Synchrotron.beta_pl": (-3.1, -2.9)}
    result = distsep.separate(
        LAWS, observe(), bounds=bounds, start={"Dust.beta_d": 1.75}, solver="newton"
    )
    assert not result.converged
    assert result.distance < 1e-3
    assert "stopped at a bound" in result.message
    assert "largest distance" not in result.message


ASKED = {
    "residuals": (False, True),
    "output": (None, "result.zarr"),
    "amplitude_unit": ("uK_CMB", "MJy/sr"),
    "tolerance": (1e-3, np.float64(1e-2)),
    "noise_true": (None, np.ones(7)),
    "start": ({"Dust.beta_d": np.array([1.5, 1.6])}, {"Dust.beta_d": [1.5, 1.6]}),
    "patches": ({"Dust.beta_d": 1}, {"Dust.beta_d": {"kmeans": 3}}),
    "components": (LAWS, LAWS[:2]),
}


@pytest.mark.parametrize("name", ASKED)
def test_ranks_that_were_asked_different_things(name, comm):
    """Some would wait for a message that the others never send."""
    one, other = ASKED[name]
    mine = other if comm.rank == comm.size - 1 and comm.size > 1 else one
    given = {"components": LAWS, "priors": PRIOR, "comm": comm, name: mine}
    if comm.size == 1:
        require_one_call(comm, "separate", given)
        return
    with pytest.raises(
        ValueError, match=rf"`separate\({name}=...\)`: rank \d was given"
    ):
        distsep.separate(observation=bits.part("idle", comm.rank, comm.size), **given)


def test_ranks_may_have_patches_and_objects_of_their_own(comm):
    """What is equal is equal on every rank, wherever it lies in memory."""
    mine = np.arange(3 + comm.rank)
    asked = {
        "patches": {"Dust.beta_d": mine, "Synchrotron.beta_pl": {"I": list(mine)}},
        "components": [distsep.CMB(), distsep.Dust(353.0)],
        "fixed": {"Dust.temp": 20 if comm.rank else np.float32(20.0)},
        "start": {"b": np.ones(3), "a": None}
        if comm.rank
        else {"a": None, "b": np.ones(3)},
    }
    require_one_call(comm, "separate", asked)
