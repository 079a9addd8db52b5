"""Bad input: one error lists all mistakes, on all ranks, before a map is looked at."""

import dense
import numpy as np
import pytest
from problems import NU

import distsep
import distsep.problem
from distsep.data.blocks import Grid
from distsep.data.patches import kmeans_patches
from distsep.data.source import ArraySource, StoreSource
from distsep.data.store import save_observation
from distsep.request import Request, read_request

NSIDE, NPIX = 4, 192
INS = distsep.Instrument(nu=NU, depth_p=[10.0] * len(NU))
TABLE = np.geomspace(10.0, 200.0, 20)
NARROW = distsep.TabulatedAME(30.0, (TABLE, np.exp(-(np.log(TABLE / 30) ** 2))))


def observe(**given):
    """A sky of three components without noise."""
    s = np.random.default_rng(70).normal(size=(3, 2, NPIX)) * 100.0
    d = np.einsum("fc,csp->fsp", dense.emission(np.array(NU), 1.54, 20.0, -3.0), s)
    return distsep.Observation(d, INS, **{"stokes": "QU", "nside": NSIDE, **given})


def lines(components, **given):
    """The mistakes that `separate` lists."""
    with pytest.raises(ValueError, match=r"^`separate\(\.\.\.\)`: ") as caught:
        distsep.separate(components, observe(), **given)
    return said(caught)


def read_lines(components, **given):
    """The same, of arguments whose types the tests do not let through `separate`."""
    source = ArraySource(observe())
    with pytest.raises(ValueError, match=r"^`separate\(\.\.\.\)`: ") as caught:
        read_request(Request(components, **given), source, distsep.parallel.serial())
    return said(caught)


def said(caught):
    text = str(caught.value)
    return text.split("\n  - ")[1:] or [text.split(": ", 1)[1]]


def sky():
    return [distsep.CMB(), distsep.Dust(150.0), distsep.Synchrotron(20.0)]


ALL = {
    "two components with one name": "2 components are called 'Synchrotron': give each",
    "a parameter in no formula": "`start` names 'Dust.tmp', which is not free: free",
    "fixed in no formula": "`fixed` names 'Dust.bta_d', which does not exist; did you",
    "shared in no formula": "`shared` names 'CMB.x', which does not exist; known: Dust",
    "a start outside its bounds": (
        "`start` of 'Dust.beta_d', 7.0, is outside its bounds [1.0, 2.0]."
    ),
    "a patch map of the wrong nside": (
        "`patches` of 'Synchrotron.beta_pl' expected a map (pix,) of a whole sphere, "
        "of nside 4 or coarser, or of the 192 pixels of the maps, got shape (3072,), "
        "nside 16."
    ),
    "a prior of zero width": (
        "`priors` of 'Dust.temp' need (mean, std) with a finite mean and std > 0"
    ),
    "out of range of a tabulated law": (
        "the table of `AME` covers 10 .. 200 GHz; the band at 240 .. 240 GHz asks for"
    ),
    "an nside that is none": "`patches` of 'Dust.temp' expected an nside, a power of",
    "bounds that are none": "`bounds` of 'AME.nu_peak' should be (lower, upper); got",
    "a band that is none": "`calibration` names '41', which does not exist; did you",
    "a global term": "`Monopole(name='monopole')`: no band '999'; bands are 40, 60,",
    "another": "`Regional(component='Dst')`: expected one of CMB, Dust",
    "a solver": "`solver` should be one of",
    "a tolerance": "`tolerance` should be positive and below 1 [sigma], got 0.",
    "steps": "`max_steps` should be a whole number, at least 1, got 0.",
    "a unit": "`amplitude_unit` should be one of K_CMB,",
    "a covariance": "`amplitude_covariance` should be names among CMB, Dust,",
}  # fmt: skip


def test_one_error_lists_all_mistakes(monkeypatch):
    monkeypatch.setattr(distsep.problem, "Plan", None)  # no map is looked at
    found = lines(
        [*sky(), distsep.Synchrotron(20.0), NARROW],
        start={"Dust.beta_d": 7.0, "Dust.tmp": 20.0},
        fixed={"Dust.bta_d": 1.5},
        shared={"x": ["CMB.x"]},
        bounds={"Dust.beta_d": (1.0, 2.0), "AME.nu_peak": 30.0},
        priors={"Dust.temp": (20.0, 0.0)},
        patches={"Synchrotron.beta_pl": np.zeros(3072, int), "Dust.temp": 3},
        calibration=["41"],
        global_terms=[distsep.Monopole(bands=["999"]), distsep.Regional("Dst")],
        solver="lm",
        tolerance=0.0,
        max_steps=0,
        amplitude_unit="uK",
        amplitude_covariance=("Dst",),
    )
    for what, words in ALL.items():
        assert sum(line.startswith(words) for line in found) == 1, (what, found)
    bands = sum(nu > 200 for nu in NU)  # each has its line
    assert len(found) == len(ALL) + bands - 1


def test_a_start_that_nobody_gave_is_not_blamed():
    (line,) = lines(sky(), bounds={"Dust.beta_d": (2.0, 3.0)})
    assert line == (
        "`start` of 'Dust.beta_d', 1.54 where none is given, is outside its bounds "
        "[2.0, 3.0]."
    )


def test_one_mistake_is_one_line():
    assert lines(sky(), start={"Dust.temp": 0.1}) == [
        "`start` of 'Dust.temp', 0.1, is outside its bounds [1.0, 1000.0]."
    ]


@pytest.mark.parametrize("components", [None, "CMB", [distsep.CMB], [None]])
def test_what_are_no_components_does_not_hide_the_rest(components):
    found = read_lines(components, mistakes=["`solver`"], patches=3)
    named = [line.split("`")[1].split("[")[0] for line in found]
    assert named == ["solver", "components", "patches"]


def test_the_names_of_a_global_term_that_is_wrong_are_not_called_wrong():
    monopole = distsep.Monopole(bands=["999"])
    priors = {"monopole.999.Q": (0.0, 1.0)}
    (line,) = lines(sky(), global_terms=[monopole], priors=priors)
    assert "no band '999'" in line


@pytest.mark.parametrize(
    "spec", [{"stokes": ["Q", "U"]}, np.arange(2 * NPIX).reshape(2, NPIX)]
)
def test_an_angle_mixes_stokes_parameters(spec):
    (line,) = lines(sky(), patches={"Dust.beta_d": spec}, angle=["40"])
    assert line.startswith("`patches` of 'Dust.beta_d' are not the same for all Stokes")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"start": {"Dust.temp": [20.0] * 11}}, "must be one number or 12, one per"),
        (
            {"start": {"Dust.temp": [5e3, 4e3, *[20.0] * 10]}},
            "in patch 0 and 1 more, 5",
        ),
        (
            {"priors": {"Dust.temp": ([20.0] * 12, [0.0] * 12)}},
            "in patch 0 and 11 more",
        ),
        ({"start": {"Dust.temp": np.nan}}, "should be finite; got nan"),
        ({"start": 20.0}, "`start` should be given by name"),
        ({"start": np.ones(3)}, "`start` should be given by name"),
    ],
)
def test_values_patch_by_patch(given, words):
    (line,) = read_lines(sky(), patches={"Dust.temp": 1}, **given)
    assert words in line


def test_a_patch_with_data_needs_a_value():
    """Which patches have, only the maps tell."""
    start = {"Dust.temp": np.where(np.arange(12) < 4, 20.0, np.nan)}
    (line,) = lines(sky(), patches={"Dust.temp": 1}, start=start)
    assert (
        line
        == "`start` of 'Dust.temp' in patch 4 and 7 more should be finite; got nan."
    )


def test_a_patch_without_data_needs_no_value():
    """The parameters of one result, NaN where there are no data, start the next."""
    half = observe(observed=np.arange(NPIX) < NPIX // 2)
    given = {"patches": {"Dust.beta_d": 1}, "fixed": {"Dust.temp": 20.0}}
    first = distsep.separate(sky(), half, solver="newton", **given)
    beta = first.parameters["Dust.beta_d"]
    assert 0 < np.isnan(beta).sum() < 12
    again = distsep.separate(
        sky(), half, solver="newton", start={"Dust.beta_d": beta}, **given
    )
    np.testing.assert_allclose(again.parameters["Dust.beta_d"], beta, rtol=1e-6)


def part(comm):
    """The share of a rank of the sky, NEST, and its numbers."""
    first, last = (NPIX * r // comm.size for r in (comm.rank, comm.rank + 1))
    cells = np.arange(first, last)
    whole = observe(ordering="NEST")
    obs = distsep.Observation(
        np.asarray(whole.d[..., cells]), INS, stokes="QU", nside=NSIDE,
        cell_ids=cells, ordering="NEST",
    )  # fmt: skip
    return obs.replace(grid=Grid.of(NPIX), start=first), cells


def test_all_ranks_tell_what_one_found(comm):
    """A patch map that is wrong on the last rank only: none waits for the others."""
    observation, cells = part(comm)
    last = comm.rank == comm.size - 1
    ids = np.zeros(len(cells) + last, int)
    request = Request(
        sky(), patches={"Dust.beta_d": ids}, priors={"Dust.temp": (20.0, 0.0)}
    )
    with pytest.raises(ValueError, match="2 mistakes") as caught:
        read_request(request, ArraySource(observation), comm)
    texts = comm.allgather(str(caught.value))
    assert set(texts) == {texts[0]}
    who = f"rank {comm.size - 1}: " if comm.size > 1 else ""
    assert f"- {who}`patches` of 'Dust.beta_d'" in texts[0]
    assert "- `priors` of 'Dust.temp'" in texts[0]


def test_patches_are_numbered_over_all_ranks(comm):
    """No rank need have all of them; more clusters than pixels of all are refused."""
    observation, cells = part(comm)
    source = ArraySource(observation)
    request = Request(sky(), patches={"Dust.beta_d": cells // 10})
    number, of = read_request(request, source, comm).where["Dust.beta_d"]
    assert number == (NPIX - 1) // 10 + 1
    assert of is not None
    np.testing.assert_array_equal(of(observation)[0], cells // 10)
    request = Request(sky(), patches={"Dust.beta_d": {"kmeans": NPIX + 1}})
    with pytest.raises(ValueError, match=f"between 1 and {NPIX} K-means.*{NPIX + 1}"):
        read_request(request, source, comm)


def test_clusters_are_those_of_the_pixels_in_use(tmp_path):
    """A store is masked when it is read: the pixels outside are in no cluster."""
    maps, used = observe(ordering="NEST"), np.arange(NPIX) % 16 < 5
    save_observation(maps, tmp_path / "sky.zarr")
    stored = distsep.open_observation(tmp_path / "sky.zarr")
    source = StoreSource(stored, 0, stored.grid.nchunks, used)
    asked = {"Dust.beta_d": {"kmeans": 9, "seed": 2}}
    request = Request(sky(), patches=asked)
    serial = distsep.parallel.serial()
    _, of = read_request(request, source, serial).where["Dust.beta_d"]
    assert of is not None
    ids = of(source.pixels(0))[0]
    cells = np.flatnonzero(used)
    np.testing.assert_array_equal(ids[cells], kmeans_patches(NSIDE, cells, 9, seed=2))
    assert (ids[~used] == -1).all()
    many = Request(sky(), patches={"Dust.beta_d": {"kmeans": len(cells) + 1}})
    with pytest.raises(ValueError, match=f"between 1 and {len(cells)} K-means"):
        read_request(many, source, serial)
