"""Stores: what is written comes back, and what is damaged says so."""

import dataclasses
import json
import shutil
import warnings
from typing import Any

import healpy
import numpy as np
import pytest
import zarr

from distsep.data import pages, store, zarr_group
from distsep.data.blocks import Grid
from distsep.data.noise import Noise, noise_from_variance
from distsep.data.observation import Observation
from distsep.data.plain import plain
from distsep.data.result import Result
from distsep.data.zarr_reader import GroupReader
from distsep.model import mistakes
from distsep.model.instrument import Instrument

NSIDE = 8
NPIX = 301  # three chunks of 128, the last in part
GRID = Grid(NPIX, 64, 128)
INSTRUMENT = Instrument(nu=[40.0, 95.0, 140.0], depth_p=[30.0, 12.5, 10.0])


def noise_of(kind, rng):
    nf, ns = 3, 2
    if kind == "uniform":
        return Noise(rng.uniform(1, 2, (nf, ns)), kind)
    if kind == "weighted":
        return Noise(rng.uniform(1, 2, (nf, ns)), "uniform", rng.uniform(0, 1, NPIX))
    if kind == "pixel":
        return Noise(rng.uniform(1, 2, (nf, ns, NPIX)), kind)
    if kind == "dense":
        return Noise(rng.uniform(1, 2, (ns, nf, nf)), kind)
    return Noise(rng.uniform(1, 2, (ns, nf, nf, NPIX)), kind)


def observation(kind="uniform", dtype=np.float64):
    rng = np.random.default_rng(5)
    d = rng.normal(size=(3, 2, NPIX)).astype(dtype)
    d[1, :, 17] = np.nan
    ids = np.sort(rng.choice(12 * NSIDE**2, NPIX, replace=False))
    return Observation.from_canonical(
        d=d, noise=noise_of(kind, rng), cell_ids=ids, grid=GRID, start=0,
        instrument=INSTRUMENT, stokes="QU", nside=NSIDE, coordsys="C",
        resolution=80.0, provenance={"seed": 5}, warnings=("beware",),
    )  # fmt: skip


def cut(whole, start, stop):
    pixels = slice(start, stop)
    return whole.replace(
        d=whole.d[..., pixels], noise=whole.noise.select(pixels),
        cell_ids=whole.cell_ids[pixels], start=start,
    )  # fmt: skip


def assert_same(one, other):
    np.testing.assert_array_equal(one.d, other.d)
    assert one.d.dtype == other.d.dtype
    assert one.noise.kind == other.noise.kind
    np.testing.assert_array_equal(one.noise.shape, other.noise.shape)
    assert (one.noise.weight is None) == (other.noise.weight is None)
    if one.noise.weight is not None:
        np.testing.assert_array_equal(one.noise.weight, other.noise.weight)
    np.testing.assert_array_equal(one.cell_ids, other.cell_ids)
    assert one.cell_ids.dtype == other.cell_ids.dtype == np.int64
    for name in (
        "grid", "start", "instrument", "stokes", "nside", "coordsys", "polcconv",
        "resolution", "provenance", "warnings",
    ):  # fmt: skip
        assert getattr(one, name) == getattr(other, name), name


NOISE = {
    "uniform": "depths",
    "weighted": "depths with a hit map",
    "pixel": "variance per pixel",
    "dense": "covariance of bands",
    "dense_pixel": "covariance of bands per pixel",
}
KINDS = [*NOISE]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(tmp_path, kind, dtype):
    whole = observation(kind, dtype)
    store.save_observation(whole, tmp_path / "sky.zarr")
    assert_same(store.read(tmp_path / "sky.zarr"), whole)
    opened = store.open_observation(tmp_path / "sky.zarr")
    assert opened.npix == NPIX
    assert opened.dtype == dtype
    assert opened.noise_kind == whole.noise.kind
    said = f" bands, QU, {NPIX} pixels of nside {whole.nside}, noise: {NOISE[kind]})"
    assert repr(opened).startswith("StoredObservation(")
    assert repr(opened).endswith(said)
    assert repr(whole).endswith(said)
    for first, last in [(0, 1), (1, 3), (2, 3)]:
        start, stop = GRID.chunk_range(first)[0], GRID.chunk_range(last - 1)[1]
        assert_same(opened.read(first, last), cut(whole, start, stop))
    assert opened.read(3, 3).npix == 0


def test_chunks_in_passing_are_the_same(tmp_path, monkeypatch):
    """From the memory of the system, from the disk, and the last, which is short."""
    path = tmp_path / "sky.zarr"
    store.save_observation(observation("pixel"), path)
    opened = store.open_observation(path)
    for held in (pages.in_memory, lambda *_: None):
        monkeypatch.setattr(pages, "in_memory", held)
        for first in range(GRID.nchunks):
            found = opened.read(first, first + 1, passing=True)
            assert_same(found, opened.read(first, first + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_every_rank_writes_and_reads_its_own(comm, shared_tmp_path, kind):
    whole, path = observation(kind), shared_tmp_path / f"{kind}.zarr"
    start, stop = GRID.rank_pixels(comm.rank, comm.size)
    store.save_observation(cut(whole, start, stop), path, comm=comm)
    assert_same(store.read(path), whole)
    first, last = GRID.rank_chunks(comm.rank, comm.size)
    assert_same(store.open_observation(path).read(first, last), cut(whole, start, stop))
    comm.barrier()


def test_ranks_with_shapes_of_their_own_write_what_one_would(comm, shared_tmp_path):
    """Shape and weight that a rank factorised from its own pixels differ."""
    whole, path = observation("weighted"), shared_tmp_path / "sky.zarr"
    variance = 1 / (whole.noise.shape[..., None] * whole.noise.weight)
    mine = slice(*GRID.rank_pixels(comm.rank, comm.size))
    own = noise_from_variance(variance[..., mine])
    store.save_observation(
        cut(whole, mine.start, mine.stop).replace(noise=own), path, comm=comm
    )
    noise, expected = (
        store.open_observation(path).read().noise,
        noise_from_variance(variance),
    )
    assert expected.weight is not None
    np.testing.assert_array_equal(noise.shape, expected.shape)
    np.testing.assert_array_equal(noise.weight, expected.weight)
    np.testing.assert_allclose(
        noise.shape[..., None] * noise.weight, 1 / variance, rtol=4e-15
    )
    comm.barrier()


def test_pixels_that_are_not_whole_chunks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected whole chunks of 128"):
        store.save_observation(cut(observation(), 0, 100), tmp_path / "sky.zarr")
    assert not (tmp_path / "sky.zarr").exists()


# ------------------------------------------------------------------ overwriting


def test_nothing_is_overwritten_unasked(comm, shared_tmp_path):
    path = shared_tmp_path / "sky.zarr"
    mine = cut(observation(), *GRID.rank_pixels(comm.rank, comm.size))
    store.save_observation(mine, path, comm=comm)
    with pytest.raises(FileExistsError, match="--overwrite"):
        store.save_observation(mine, path, comm=comm)
    other = mine.replace(d=mine.d + 1)
    store.save_observation(other, path, comm=comm, overwrite=True)
    again = store.open_observation(path).read()
    np.testing.assert_array_equal(again.d, observation().d + 1)
    comm.barrier()


def test_a_good_store_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "sky.zarr"
    store.save_observation(observation(), path)
    other = observation().replace(d=observation().d + 1)
    for _ in range(2):  # what the first left behind does not hinder the second
        writer = store.ObservationWriter(path, other, overwrite=True)
        writer.write(0, cut(other, 0, 128))
        assert_same(store.read(path), observation())
    store.save_observation(other, path, overwrite=True)
    assert_same(store.read(path), other)
    assert [f.name for f in tmp_path.iterdir()] == ["sky.zarr"]


def test_what_is_not_ours_is_never_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("work of years")
    zarr.create_group(tmp_path / "other.zarr")
    for name in ("thesis", "other.zarr"):
        with pytest.raises(FileExistsError, match="not a distsep store"):
            store.save_observation(observation(), tmp_path / name, overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()
    store.save_observation(observation(), tmp_path / "sky.zarr")
    arrays = store.result_arrays(["CMB"], "QU", NSIDE, units={"CMB": "uK_CMB"})
    with pytest.raises(FileExistsError, match="is an observation, which a result"):
        store.ResultWriter(tmp_path / "sky.zarr", GRID, arrays, overwrite=True)
    assert_same(store.read(tmp_path / "sky.zarr"), observation())


# ------------------------------------------------------------------ damage


@pytest.fixture
def sky(tmp_path):
    store.save_observation(observation("weighted"), tmp_path / "sky.zarr")
    return tmp_path / "sky.zarr"


@pytest.mark.parametrize("name", ["maps/c/0/0/1", "cell_ids/c/1", "weight/c/1"])
def test_a_truncated_chunk_is_named(sky, name):
    chunk = sky / name
    chunk.write_bytes(chunk.read_bytes()[:-8])
    opened = store.open_observation(sky)
    with pytest.raises(OSError, match=f"{name} is truncated.*bytes"):
        opened.read()
    # Others are not concerned: only what is asked for is read.
    assert opened.read(0, 1).npix == 128


@pytest.mark.parametrize("name", ["maps/c/0/0/2", "inverse_noise/c/0/0"])
def test_a_missing_chunk_is_named(sky, name):
    (sky / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        store.read(sky)


def test_an_unfinished_store_is_refused(tmp_path):
    path, whole = tmp_path / "sky.zarr", observation()

    def write():
        with store.ObservationWriter(path, whole, overwrite=True) as writer:
            writer.write(0, cut(whole, 0, 128))
            raise RuntimeError("disk full")

    for _ in range(2):  # the second in place of the first
        with pytest.raises(RuntimeError, match="disk"):
            write()
        for reader in (store.read, store.open_observation):
            with pytest.raises(ValueError, match="was not finished"):
                reader(path)


def test_what_is_no_store_says_so(tmp_path):
    zarr.create_group(tmp_path / "other.zarr")
    for name, words in (
        ("nothing.zarr", "there is no .*nothing.zarr"),
        ("other.zarr", "other.zarr is not a distsep store: `distsep import`"),
    ):
        with pytest.raises(FileNotFoundError, match=words):
            store.read(tmp_path / name)


def edit(file, keys, value):
    """Change one entry of a JSON file."""
    *places, last = keys
    head = place = json.loads(file.read_text())
    for key in places:
        place = place[key]
    place[last] = value
    file.write_text(json.dumps(head))


HEADERS = {
    "stokes": (("stokes",), "IQU"),
    "stokes none": (("stokes",), None),
    "bands": (("bands",), ["40", "95"]),
    "coordsys": (("coordsys",), "galactic"),
    "format": (("distsep", "format"), "x"),
    "kind": (("distsep", "kind"), "map"),
    "marks": (("distsep",), 7),
    "pixels": (("grid", "npix"), 300),
    "chunk": (("grid", "chunk"), 64),
    "grid": (("grid",), None),
    "grid block": (("grid", "block"), 3),
    "complete bands": (("complete_bands",), "no"),
    "resolution of the maps": (("resolution",), [30.0]),
    "warnings": (("warnings",), "beware"),
    "depths": (("instrument", "depth_p"), {}),
    "resolution": (("dggs", "refinement_level"), 1),
    "level": (("dggs", "refinement_level"), "x"),
    "scheme": (("dggs", "indexing_scheme"), "ring"),
    "dggs": (("dggs",), {}),
    "compressed": (("dggs", "compression"), "mortie"),
    "kind of kinds": (("distsep", "kind"), ["observation"]),
    "instrument": (("instrument",), {"mu": 3}),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_does_not_fit_is_refused(sky, case):
    keys, value = HEADERS[case]
    edit(sky / "zarr.json", ("attributes", *keys), value)
    with pytest.raises(ValueError, match=r"sky.zarr is damaged \(.*zarr.json.*again"):
        store.read(sky)


RESULT_HEADERS = {
    "names": (("names",), ["Dust.beta_d"]),
    "no names": (("names",), None),
    "components": (("component_names",), ["CMB", "Dust", "Ring"]),
    "covariances": (("covariance_names",), ["Ring", "CMB"]),
    "patches": (("patched",), ["Dust.temp"]),
    "kinds": (("kinds",), 3),
    "bands": (("bands",), ["40", "95"]),
    "stokes": (("stokes",), "IQU"),
    "unit": (("units", "CMB"), 7),
    "reference": (("nu0",), {"CMB": "150 GHz"}),
    "converged": (("converged",), "false"),
    "dof": (("dof",), 2.5),
    "chi2": (("chi2_total",), [1.0]),
    "steps": (("steps",), None),
    "message": (("message",), 7),
    "reduced": (("reduced",), [1]),
    "run": (("run",), "long"),
    "seconds": (("run", "seconds"), {"fit": "long"}),
    "ranks": (("run", "ranks"), None),
    "global terms": (("global_terms",), {"monopole.40": 1.5}),
    "warnings": (("warnings",), 7),
    "sphere": (("dggs", "refinement_level"), 1),
}


@pytest.mark.parametrize("case", RESULT_HEADERS)
def test_a_header_of_a_result_that_does_not_fit_is_refused(tmp_path, case):
    path = tmp_path / "fit.zarr"
    store.save_result(result(), path)
    keys, value = RESULT_HEADERS[case]
    edit(path / "zarr.json", ("attributes", *keys), value)
    with pytest.raises(ValueError, match=r"fit.zarr is damaged \(.*zarr.json.*again"):
        store.read(path)


ARRAYS = {
    "maps in K": ("maps", ("attributes", "units"), "K_CMB", "units = 'K_CMB'"),
    "axes": ("maps", ("dimension_names",), ["stokes", "freq", "cells"], "axes .*expec"),
    "noise": ("inverse_noise", ("dimension_names",), ["a", "b"], "axes .*expected"),
    "its unit": ("inverse_noise", ("attributes", "units"), "uK", "units = 'uK'"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_that_says_something_else_is_refused(sky, case):
    name, keys, value, words = ARRAYS[case]
    edit(sky / name / "zarr.json", keys, value)
    with pytest.raises(ValueError, match=rf"damaged \({name}/zarr.json: {words}"):
        store.open_observation(sky)


def test_no_array_of_a_result_is_a_name_that_parameters_may_have(tmp_path):
    power = {"residual_power": np.ones((3, 2)), "fisher_inverse": np.eye(5)}
    store.save_result(result().replace(**power), tmp_path / "fit.zarr")
    found = {file.parent.name for file in tmp_path.glob("fit.zarr/*/zarr.json")}
    assert {name for name in found if "." not in name} == set(mistakes.ARRAYS)


def test_arrays_of_somebody_else_are_none_of_ours(sky):
    group = zarr.open_group(sky, mode="r+")
    group.create_array("notes", data=np.arange(5))
    assert_same(store.read(sky), observation("weighted"))


@pytest.mark.parametrize("name", ["", "maps", "cell_ids", "inverse_noise"])
@pytest.mark.parametrize("text", ["garbage", "", "[]", '{"zarr_format": 3}', None])
def test_a_damaged_zarr_json_is_named(sky, name, text):
    file = sky / name / "zarr.json"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    no_store = not name and text in (None, '{"zarr_format": 3}')
    with pytest.raises(
        FileNotFoundError if no_store else ValueError,
        match="not a distsep store" if no_store else rf"damaged \({name}.*zarr.json",
    ):
        store.read(sky)


def test_attributes_that_are_missing_are_named(sky, tmp_path):
    store.save_result(result(), tmp_path / "fit.zarr")
    for path, keys in (
        (sky, ("instrument", "bands", "stokes", "dggs", "grid")),
        (tmp_path / "fit.zarr", ("kinds", "run", "stokes", "global_terms", "grid")),
    ):
        whole = (path / "zarr.json").read_text()
        for key in keys:
            head = json.loads(whole)
            del head["attributes"][key]
            (path / "zarr.json").write_text(json.dumps(head))
            with pytest.raises(
                ValueError, match=rf"damaged \(zarr.json: '{key}' is mis"
            ):
                store.read(path)


def test_a_store_inside_a_store_is_refused(sky):
    for path in (sky / "fit.zarr", sky / "maps" / "fit.zarr"):
        with pytest.raises(FileExistsError, match="is inside the distsep store"):
            store.save_result(result(), path)
    assert_same(store.read(sky), observation("weighted"))


def test_two_processes_do_not_write_one_store(tmp_path, monkeypatch):
    """Both had seen that the place was free: the ranks of a run without `comm`."""
    path = tmp_path / "sky.zarr"
    monkeypatch.setattr(zarr_group, "require_place", lambda *_, **__: None)
    with store.ObservationWriter(path, observation()):
        with pytest.raises(FileExistsError, match=r"another process.*comm=distsep"):
            store.ObservationWriter(path, observation())
        assert (path / "maps" / "zarr.json").exists()
    (tmp_path / "empty.zarr").mkdir()
    store.save_observation(observation(), tmp_path / "empty.zarr")
    assert_same(store.read(tmp_path / "empty.zarr"), observation())


def test_a_later_format_is_refused(sky):
    file = sky / "zarr.json"
    head = json.loads(file.read_text())
    head["attributes"]["distsep"]["format"] += 1
    file.write_text(json.dumps(head))
    with pytest.raises(ValueError, match="update distsep"):
        store.read(sky)


def test_a_chunk_of_the_wrong_length_is_refused(tmp_path):
    whole = observation()
    with store.ObservationWriter(tmp_path / "sky.zarr", whole) as writer:
        with pytest.raises(ValueError, match=r"expected shape \(3, 2, 45\)"):
            writer.write(2, cut(whole, 0, 128))
        for chunk in range(3):
            writer.write(chunk, cut(whole, *GRID.chunk_range(chunk)))
    assert_same(store.read(tmp_path / "sky.zarr"), whole)


def test_a_chunk_of_nothing_but_fill_values_is_a_chunk(tmp_path):
    whole = observation()
    whole.d[..., :128] = np.nan
    store.save_observation(whole, tmp_path / "sky.zarr")
    assert_same(store.read(tmp_path / "sky.zarr"), whole)


# ------------------------------------------------------------------ format


def test_xarray_opens_it(sky):
    xarray = pytest.importorskip("xarray")
    with xarray.open_zarr(sky, consolidated=False) as ds:
        whole = observation("weighted")
        assert ds["maps"].dims == ("freq", "stokes", "cells")
        assert ds["maps"].attrs["units"] == "uK_CMB"
        assert "cell_ids" in ds["maps"].coords
        np.testing.assert_array_equal(ds["maps"].values, whole.d)
        np.testing.assert_array_equal(ds["cell_ids"].values, whole.cell_ids)
        np.testing.assert_array_equal(ds["freq"].values, INSTRUMENT.nu)
        U = ds["maps"].sel(freq=95, stokes="U")
        np.testing.assert_array_equal(U.values, whole.d[1, 1])
        assert ds["inverse_noise"].dims == ("freq", "stokes")
        assert (ds.attrs["coordsys"], ds.attrs["polcconv"]) == ("C", "COSMO")


def test_pixel_numbers_are_unsigned_in_the_store_and_healpys_in_memory(sky):
    head = json.loads((sky / "cell_ids" / "zarr.json").read_text())
    assert head["data_type"] == "uint64"
    ids = store.read(sky).cell_ids
    assert ids.dtype == np.int64
    ring = healpy.nest2ring(NSIDE, ids)
    np.testing.assert_array_equal(healpy.ring2nest(NSIDE, ring), ids)


def test_xdggs_decodes_it(sky):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("xdggs")
    with xarray.open_zarr(sky, consolidated=False) as ds:
        decoded = ds.dggs.decode(convention="zarr")
        assert decoded.dggs.grid_info.level == 3
        assert decoded.dggs.grid_info.indexing_scheme == "nested"


def test_the_convention_is_written(sky):
    head = json.loads((sky / "zarr.json").read_text())["attributes"]
    assert head["dggs"] == {
        "name": "healpix", "refinement_level": 3, "indexing_scheme": "nested",
        "spatial_dimension": "cells", "coordinate": "cell_ids", "compression": "none",
    }  # fmt: skip
    assert head["complete"] is True
    assert head["bands"] == ["40", "95", "140"]
    maps = json.loads((sky / "maps" / "zarr.json").read_text())
    assert [codec["name"] for codec in maps["codecs"]] == ["bytes"], "no compression"
    assert maps["chunk_grid"]["configuration"]["chunk_shape"] == [3, 2, 128]


def test_the_truth_goes_with_a_simulation(tmp_path):
    whole = observation()
    s = np.random.default_rng(1).normal(size=(2, 2, NPIX))
    truth = store.Truth(
        ("CMB", "Dust"), ("uK_CMB", "uK_RJ"), {"Dust.beta_d": 1.54, "Dust.temp": None}
    )
    with store.ObservationWriter(tmp_path / "s.zarr", whole, truth=truth) as writer:
        for chunk in range(3):
            start, stop = GRID.chunk_range(chunk)
            writer.write(chunk, cut(whole, start, stop), s[..., start:stop])
    opened = store.open_observation(tmp_path / "s.zarr")
    assert opened.truth == truth
    np.testing.assert_array_equal(opened.read_truth(1, 2), s[..., 128:256])


def test_plain_is_json():
    odd = {
        "a": np.float64(2),
        "b": (np.int32(1), np.nan),
        "c": {"d": np.arange(2)},
        3: {1},
    }
    expected = {"a": 2.0, "b": [1, None], "c": {"d": [0, 1]}, "3": [1]}
    assert plain(odd) == expected
    json.dumps(plain({"path": shutil, "none": None}))


# ------------------------------------------------------------------ results


def result(comm_rank=0, comm_size=1, caller_index=None):
    rng = np.random.default_rng(8)
    kinds = {"Dust.beta_d": (), "Synchrotron.beta_pl": (4,)}

    def numbers():
        return {kind: rng.normal(size=shape) for kind, shape in kinds.items()}

    values: dict[str, Any] = dict(
        names=("Dust.beta_d", *(f"Synchrotron.beta_pl[{n}]" for n in range(4))),
        parameters=numbers(), sigma=numbers(), start=numbers(),
        covariance=rng.normal(size=(5, 5)), hessian_inverse=rng.normal(size=(5, 5)),
        fisher_inverse=None, amplitudes=rng.normal(size=(3, 2, NPIX)),
        amplitude_covariance=rng.normal(size=(2, NPIX, 2, 2)),
        covariance_names=("Dust", "CMB"), residuals=rng.normal(size=(3, 2, NPIX)),
        chi2=rng.normal(size=(2, NPIX)), dof=1000, chi2_total=1e3 / 3,
        neg_log_like=5e2 / 3, converged=True, steps=17, message="converged",
        component_names=("CMB", "Dust", "Synchrotron"), bands=("40", "95", "140"),
        units={"CMB": "uK_CMB", "Dust": "uK_RJ", "Synchrotron": "uK_RJ"},
        stokes="QU", nside=NSIDE, coordsys="G", polcconv="COSMO",
        cell_ids=np.arange(NPIX) + 7, distance=np.nan,
        global_terms={"monopole.40": (1.5, 0.25)}, warnings=("beware",),
        patches={"Synchrotron.beta_pl": rng.integers(-1, 4, (1, NPIX))},
        seconds={"fit": 1.25}, ranks=comm_size, devices=2, reduced=(10, 602),
        provenance={"configuration": "[fit]"}, grid=GRID, caller_index=caller_index,
    )  # fmt: skip
    start, stop = GRID.rank_pixels(comm_rank, comm_size)
    mine = slice(start, stop)
    values["first_pixel"] = start
    for name in ("amplitudes", "chi2", "residuals", "cell_ids"):
        values[name] = values[name][..., mine]
    values["amplitude_covariance"] = values["amplitude_covariance"][:, mine]
    values["patches"] = {k: ids[:, mine] for k, ids in values["patches"].items()}
    return Result(**values)


def assert_same_result(read, wanted):
    for name in (
        "amplitudes", "amplitude_covariance", "chi2", "residuals", "cell_ids",
        "covariance", "hessian_inverse", "distance",
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(read, name), getattr(wanted, name))
    for name in ("parameters", "sigma", "start", "patches"):
        one, other = getattr(read, name), getattr(wanted, name)
        assert one.keys() == other.keys()
        for kind in one:
            np.testing.assert_array_equal(one[kind], other[kind])
    for name in (
        "names", "fisher_inverse", "dof", "chi2_total", "neg_log_like", "converged",
        "steps", "message", "component_names", "bands", "units", "stokes", "nside",
        "coordsys", "polcconv", "global_terms", "warnings", "seconds", "ranks",
        "devices", "covariance_names", "reduced", "provenance", "grid",
    ):  # fmt: skip
        assert getattr(read, name) == getattr(wanted, name), name


def test_results_come_back(comm, shared_tmp_path):
    path = shared_tmp_path / "result.zarr"
    store.save_result(result(comm.rank, comm.size), path, comm=comm)
    whole = dataclasses.replace(result(), ranks=comm.size)
    assert_same_result(store.read(path), whole)
    comm.barrier()


def test_xarray_knows_the_axes_of_a_result_by_name(tmp_path):
    xarray = pytest.importorskip("xarray")
    wanted, path = result(), tmp_path / "result.zarr"
    store.save_result(wanted, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = xarray.open_zarr(path, consolidated=False)
    with ds:
        found = ds["amplitudes"].sel(comp="Dust", stokes="Q").values
        np.testing.assert_array_equal(found, wanted.amplitudes[1, 0])
        one = ds["amplitude_covariance"].sel(chosen="CMB", chosen_2="Dust", stokes="U")
        np.testing.assert_array_equal(
            one.values, wanted.amplitude_covariance[1, :, 1, 0]
        )
        names = {"param": "Dust.beta_d", "param_2": "Synchrotron.beta_pl[2]"}
        assert float(ds["covariance"].sel(names)) == wanted.covariance[0, 3]


def test_results_in_the_callers_order_are_put_in_that_of_the_cells(tmp_path):
    wanted = result()
    index = np.random.default_rng(3).permutation(2 * NPIX)[:NPIX]
    mixed: dict[str, Any] = {}
    for name in ("amplitudes", "chi2", "residuals"):
        values = getattr(wanted, name)
        mixed[name] = np.full((*values.shape[:-1], 2 * NPIX), np.nan)
        mixed[name][..., index] = values
    covariance = np.full((2, 2 * NPIX, 2, 2), np.nan)
    covariance[:, index] = wanted.amplitude_covariance
    given = result(caller_index=index)
    given = dataclasses.replace(given, **mixed, amplitude_covariance=covariance)
    store.save_result(given, tmp_path / "result.zarr")
    assert_same_result(store.read(tmp_path / "result.zarr"), wanted)


def test_an_observation_is_not_a_result(sky):
    from distsep.data.result_store import load_result

    with pytest.raises(ValueError, match="holds an observation, not a result"):
        load_result(sky)
    assert GroupReader(sky).kind == "observation"
