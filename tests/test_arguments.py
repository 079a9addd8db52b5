"""Arguments of the wrong kind, and ranks that were asked different things."""

from types import SimpleNamespace
from typing import Any

import bits
import jaxtyping
import numpy as np
import pytest
import zarr

import distsep
from distsep.agreement import require_one_call
from distsep.data import source
from distsep.parallel import device_mesh

NU = np.array([40.0, 60.0, 90.0, 120.0, 160.0, 240.0, 350.0])
LAWS = [distsep.CMB(), distsep.Dust(150.0, temp=20.0), distsep.Synchrotron(20.0)]
NPIX = 48


def observe(cells=None, instrument=None, **changes):
    """Noise on a known sky: of all pixels of nside 2, or of some."""
    rng = np.random.default_rng(81)
    maps = rng.normal(size=(7, 2, NPIX))
    given = {"stokes": "QU", "nside": 2, "ordering": "NEST", "noise_variance": 1.0}
    cells = np.arange(NPIX) if cells is None else np.asarray(cells, int)
    return distsep.Observation(
        maps[..., cells],
        instrument or distsep.Instrument(NU),
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
        ({"global_terms": 5}, "`global_terms`: expected a list, .*; got 5"),
        ({"global_terms": None}, "`global_terms`: expected a list, .*; got None"),
        ({"global_terms": [distsep.Monopole(bands=[])]}, "`bands` names none"),
    ],
)
def test_what_is_none_is_said(wrong, words):
    with pytest.raises((ValueError, TypeError), match=words):
        distsep.separate(LAWS, observe(), **wrong)


@pytest.mark.usefixtures("untyped")
def test_words_are_not_taken_for_yes():
    word: Any = "no"
    term = distsep.Template(np.ones(NPIX), common=word)
    with pytest.raises(ValueError, match="`common` should be True or False; got 'no'"):
        distsep.separate(LAWS, observe(), global_terms=[term])


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


@pytest.mark.parametrize("resident", [True, False])
def test_a_store_that_lost_samples_after_it_was_written(
    tmp_path, monkeypatch, resident
):
    """They would count as zeros, with all their weight."""
    observe().save(tmp_path / "sky.zarr")
    maps: Any = zarr.open_group(tmp_path / "sky.zarr", mode="r+")["maps"]
    maps[3, 1, 17] = np.nan
    monkeypatch.setattr(source, "RESIDENT", 2**29 if resident else 0)
    store = distsep.open_observation(tmp_path / "sky.zarr")
    with pytest.raises(ValueError, match=r"sky.zarr is damaged .*hold NaN.*again"):
        distsep.separate(LAWS, store, priors=PRIOR)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("nu", {"nu": 1.2 * NU}),
        ("bandpass", {"nu": NU, "bandpass": [([0.8 * v, v], [1, 2]) for v in NU]}),
    ],
)
def test_weights_are_of_the_bands_that_were_fitted(fitted, what, changes):
    other = distsep.Instrument(**changes, bands=fitted.bands)
    with pytest.raises(ValueError, match=f"another `{what}` than those of the fit"):
        fitted.apply(observe(instrument=other))


@pytest.mark.parametrize("name", ["a/b", "/../../elsewhere"])
def test_names_are_no_paths(name):
    """Arrays and files are named after components and bands."""
    for make in (
        lambda: distsep.Dust(353.0, name=name),
        lambda: distsep.Line({"100": 1.0}, name=name),
        lambda: distsep.Line({name: 1.0}),
        lambda: distsep.Instrument(NU, bands=[name, *"bcdefg"]),
        lambda: distsep.separate(LAWS, observe(), global_terms=monopole(name=name)),
    ):
        with pytest.raises(ValueError, match="without .*slashes"):
            make()


def test_a_start_that_nobody_gave_is_named():
    """Far from the truth a fit may end where components are exchanged."""

    def warned(defaults=None, **given):
        law = distsep.Component("(nu/nu0)**b", name="Law", nu0=20.0, defaults=defaults)
        laws = [distsep.CMB(), law]
        prior = {"Law.b": (-3.0, 0.1)}
        warnings = distsep.separate(laws, observe(), priors=prior, **given).warnings
        return [words for words in warnings if "started at 1" in words]

    (words,) = warned()
    assert words.startswith("Law.b started at 1")
    assert not warned({"b": -3.0})
    assert not warned({"b": 1.0})
    assert not warned(start={"Law.b": -3.0})


def test_a_share_of_the_pixels_is_no_whole_sky():
    """Each rank would fit its own, and say nothing."""
    maps = np.random.default_rng(5).normal(size=(7, 2, 12 * 32**2))
    given: Any = {"stokes": "QU", "nside": 32, "noise_variance": 1.0}
    whole = distsep.Observation(maps, distsep.Instrument(NU), **given)
    for rank in range(2):
        share = whole.share(SimpleNamespace(rank=rank, size=2))
        with pytest.raises(ValueError, match="share of one of several ranks.*comm="):
            distsep.separate(LAWS, share, priors=PRIOR)


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


def monopole(*bands, **more):
    return [distsep.Monopole(bands=list(bands), **more)]


ASKED = [
    ("residuals", False, True),
    ("output", None, "result.zarr"),
    ("amplitude_unit", "uK_CMB", "MJy/sr"),
    ("tolerance", 1e-3, np.float64(1e-2)),
    ("noise_true", None, np.ones(7)),
    ("start", {"Dust.beta_d": np.array([1.5, 1.6])}, {"Dust.beta_d": [1.5, 1.6]}),
    ("patches", {"Dust.beta_d": 1}, {"Dust.beta_d": {"kmeans": 3}}),
    ("components", LAWS, LAWS[:2]),
    ("components", LAWS, [LAWS[0], distsep.Dust(353.0, temp=20.0), LAWS[2]]),
    ("components", LAWS, [LAWS[0], distsep.Dust(150.0, temp=21.0), LAWS[2]]),
    ("components", *([distsep.Component(t, unit="K_RJ")] for t in ("nu", "nu**2"))),
    ("global_terms", monopole("40"), monopole("60")),
    ("global_terms", monopole(0), monopole(1, 2)),
    ("global_terms", monopole(0), monopole(0, prior=(0.0, 1.0))),
    ("global_terms", *([distsep.Regional("Dust", regions=n)] for n in (1, 2))),
]


@pytest.mark.parametrize(("name", "one", "other"), ASKED)
def test_ranks_that_were_asked_different_things(name, one, other, comm):
    """Some would wait for a message that the others never send."""
    mine = other if comm.rank == comm.size - 1 and comm.size > 1 else one
    given = {"components": LAWS, "priors": PRIOR, "comm": comm, name: mine}
    if comm.size == 1:
        require_one_call(comm, "separate", given)
        return
    with pytest.raises(
        ValueError, match=rf"`separate\({name}=...\)`: rank \d was given"
    ):
        distsep.separate(observation=bits.part("idle", comm), **given)


WIDE: dict[str, Any] = {"bandpass": [(nu * np.array([0.8, 1.2]), [1, 1]) for nu in NU]}


@pytest.mark.parametrize(
    ("what", "one", "other"),
    [
        ("bandpass", {}, WIDE),
        ("response", WIDE, WIDE | {"response": "weights"}),
        ("bands", {}, {"bands": tuple("abcdefg")}),
    ],
)
def test_ranks_of_another_instrument(what, one, other, comm):
    last = comm.rank == comm.size - 1 and comm.size > 1
    cells = np.array_split(np.arange(NPIX), comm.size)[comm.rank]
    mine = observe(cells, instrument=distsep.Instrument(NU, **other if last else one))
    if comm.size == 1:
        return
    with pytest.raises(
        ValueError, match=rf"rank \d has {what} .*parts of one data set"
    ):
        distsep.separate(LAWS, mine, priors=PRIOR, comm=comm)


@pytest.mark.parametrize("norm", ["max", "mean", 2.0])
def test_hits_in_units_of_each_ranks_own(norm, comm):
    """The largest of one rank's pixels is not the largest of the sky."""
    cells = np.array_split(np.arange(NPIX), comm.size)[comm.rank]
    depths = distsep.Instrument(NU, depth_p=np.full(7, 60.0))
    given = {"hits": 1.0 + cells, "hits_norm": norm, "noise_variance": None}
    mine = observe(cells, depths, **given)
    if comm.size == 1 or norm == 2.0:
        found = distsep.separate(LAWS, mine, priors=PRIOR, comm=comm)
        assert found.dof > 0
        return
    with pytest.raises(ValueError, match=rf"hits_norm='{norm}'.*as a number, the same"):
        distsep.separate(LAWS, mine, priors=PRIOR, comm=comm)


def test_hits_of_parts_of_one_observation_are_in_units_of_the_whole(comm):
    """Of a mask too, that leaves other pixels to each rank."""
    whole = bits.sky("idle")
    mask = np.arange(whole.caller_npix) % 3 > 0
    found = distsep.separate(LAWS, whole.share(comm), observed=mask, comm=comm)
    alone = distsep.separate(LAWS, whole, observed=mask)
    for name, value in alone.parameters.items():
        off = found.parameters[name] - value
        assert abs(off) < 1e-8 * alone.sigma[name]
    assert found.dof == alone.dof


def test_ranks_without_pixels_with_an_angle(comm):
    """A sky of one chunk: of two ranks one has nothing."""
    found = distsep.separate(
        LAWS,
        observe().share(comm),
        angle=["60"],
        priors=PRIOR | {"angle.60": (0.0, 0.01)},
        residuals=True,
        comm=comm,
    )
    alone = distsep.separate(
        LAWS, observe(), angle=["60"], priors=PRIOR | {"angle.60": (0.0, 0.01)}
    )
    assert found.parameters == alone.parameters


def test_results_of_ranks_cut_inside_chunks_are_not_saved(comm, shared_tmp_path):
    cells = np.array_split(np.arange(NPIX), comm.size)[comm.rank]
    found = distsep.separate(LAWS, observe(cells), priors=PRIOR, comm=comm)
    path = shared_tmp_path / "fit.zarr"
    if comm.size == 1:
        found.save(path, comm=comm)
        return
    with pytest.raises(ValueError, match=r"`Result.save.* hold parts of chunks"):
        found.save(path, comm=comm)


def test_all_ranks_or_none_keep_maps_in_memory(comm, shared_tmp_path, monkeypatch):
    """Of three chunks one rank of two has two."""
    rng = np.random.default_rng(9)
    instrument = distsep.Instrument(NU)
    whole = distsep.Observation(
        rng.normal(size=(7, 1, 12 * 32**2)),
        instrument,
        stokes="I",
        nside=32,
        ordering="NEST",
        noise_variance=1.0,
    )
    path = shared_tmp_path / "sky.zarr"
    if comm.rank == 0:
        whole.save(path)
    comm.barrier()
    monkeypatch.setattr(source, "RESIDENT", 7 * 4096 * 8)
    stored = distsep.open_observation(path)
    found = distsep.separate(LAWS, stored, priors=PRIOR, comm=comm)
    kept = comm.allgather(found.amplitudes is not None)
    assert kept == [comm.size > 2] * comm.size


def test_a_template_that_is_zero_on_some_ranks(comm):
    """Zero in the pixels of one rank is no mistake; of all ranks it is."""
    cells = np.array_split(np.arange(NPIX), comm.size)[comm.rank]
    template = distsep.Template((cells < 5) * 1.0, bands=["40"], prior=(0.0, 1.0))
    given = {"priors": PRIOR, "comm": comm, "global_terms": [template]}
    found = distsep.separate(LAWS, observe(cells), **given)
    assert np.isfinite(found.global_terms["template.40.Q"][1])
    given["global_terms"] = [distsep.Template(0.0 * cells, bands=["40"])]
    with pytest.raises(ValueError, match="Template.* is zero everywhere"):
        distsep.separate(LAWS, observe(cells), **given)


def test_a_term_that_is_called_like_a_parameter_of_the_instrument():
    terms = [distsep.Monopole(["60"], stokes="Q", name="calibration")]
    with pytest.raises(ValueError, match=r"'calibration.60' is a parameter of the ins"):
        distsep.separate(LAWS, observe(), calibration=["60"], global_terms=terms)


def test_ranks_may_have_patches_and_objects_of_their_own(comm):
    """What is equal is equal on every rank, wherever it lies in memory."""
    mine = np.arange(3 + comm.rank)
    asked = {
        "global_terms": [distsep.Template(mine, bands=[0])],
        "patches": {"Dust.beta_d": mine, "Synchrotron.beta_pl": {"I": list(mine)}},
        "components": [distsep.CMB(), distsep.Dust(353.0)],
        "fixed": {"Dust.temp": 20 if comm.rank else np.float32(20.0)},
        "start": {"b": np.ones(3), "a": None}
        if comm.rank
        else {"a": None, "b": np.ones(3)},
    }
    require_one_call(comm, "separate", asked)


def test_weights_on_a_store_of_another_type(tmp_path, monkeypatch):
    """Both are read in parts of the same pixels."""
    nside, npix = 32, 12_288
    maps = np.random.default_rng(82).normal(size=(7, 2, npix)).astype(np.float32)
    stores = []
    for dtype in (np.float64, np.float32):
        one = distsep.Observation(
            maps.astype(dtype),
            distsep.Instrument(NU),
            stokes="QU",
            nside=nside,
            ordering="NEST",
            noise_variance=1.0,
        )
        one.save(tmp_path / f"{dtype.__name__}.zarr")
        stores.append(distsep.open_observation(tmp_path / f"{dtype.__name__}.zarr"))
    monkeypatch.setattr(source, "RESIDENT", 0)
    monkeypatch.setattr(source, "PART", 7 * 2 * 4096 * 4 * 2)
    given = {"priors": PRIOR, "solver": "newton"}
    outputs = []
    for fitted, other in (stores, stores[::-1]):
        result = distsep.separate(
            LAWS, fitted, output=tmp_path / f"r{len(outputs)}.zarr", **given
        )
        result.apply(other, output=tmp_path / f"a{len(outputs)}.zarr")
        outputs.append(distsep.read(tmp_path / f"a{len(outputs)}.zarr").amplitudes)
        own = distsep.read(tmp_path / f"r{len(outputs) - 1}.zarr").amplitudes
        np.testing.assert_allclose(outputs[-1], own, rtol=1e-9, atol=1e-12)
        with pytest.raises(ValueError, match="too large to stay in memory"):
            result.bias(other, own)
