"""The same to the last bit for any number of ranks and devices, at real block sizes."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import bits
import numpy as np
import pytest

import distsep
from distsep.data import source
from distsep.data.blocks import Grid
from distsep.parallel import serial


@cache
def alone(case):
    """The answer of one process on one device."""
    return bits.separate(case, serial(), 1)


def require_same(found, expected):
    for name, x in expected.items():
        assert found[name].dtype == x.dtype
        assert found[name].tobytes() == x.tobytes(), name


@pytest.mark.parametrize("case", bits.SKIES)
def test_the_skies_are_what_they_should_be(case):
    grid = bits.sky(case).grid
    assert grid.block >= 4096
    assert grid.npix % grid.block
    idle = [grid.rank_pixels(rank, 3) for rank in range(3)]
    assert any(a == b for a, b in idle) == (case == "idle")
    found = alone(case)
    assert np.isfinite(found["parameters"][~np.isnan(found["parameters"])]).all()
    assert np.isfinite(found["covariance"]).all()


@pytest.mark.parametrize("case", bits.SKIES)
def test_these_ranks_with_one_and_two_devices(case, comm):
    """Serially: the devices. Under mpirun: the ranks as well."""
    start, stop = bits.sky(case).grid.rank_pixels(comm.rank, comm.size)
    mine = {n: alone(case)[n][..., start:stop].copy() for n in bits.MAPS}
    for devices in bits.DEVICES if comm.size > 1 else bits.DEVICES[1:]:
        require_same(bits.separate(case, comm, devices), alone(case) | mine)


def test_a_share_of_maps_that_every_rank_has(comm):
    """In the caller's order, RING: its own pixels, and NaN where others have them."""
    rng, npix = np.random.default_rng(73), 12 * 32**2
    hidden = rng.random(npix) < 0.3
    maps = rng.normal(size=(len(bits.NU), 2, npix)) + 50.0
    maps[..., hidden] = np.nan
    instrument = distsep.Instrument(nu=bits.NU, depth_p=np.full(len(bits.NU), 10.0))
    whole = distsep.Observation(maps, instrument, stokes="QU", nside=32)
    asked = {"patches": {"Dust.beta_d": rng.integers(0, 3, npix)}, "priors": PRIOR}
    alone = distsep.separate(bits.laws(), whole, **asked)
    mine = whole.share(comm)
    found = distsep.separate(bits.laws(), mine, comm=comm, **asked)
    assert found.covariance.tobytes() == alone.covariance.tobytes()
    own = np.isin(np.arange(npix), mine.caller_index)
    assert sum(comm.allgather(own.astype(int))).tolist() == (~hidden).tolist()
    expected = np.where(own, alone.amplitudes, np.nan)
    np.testing.assert_array_equal(found.amplitudes, expected)
    if comm.size > 1:
        with pytest.raises(ValueError, match=r"share\(comm\).*share it once"):
            mine.share(comm)


@pytest.mark.parametrize("case", bits.SKIES)
def test_a_store_that_is_streamed(case, comm, shared_tmp_path, monkeypatch):
    """Chunk by chunk at every pass, or read once: the same, on any ranks."""
    if comm.rank == 0:
        bits.sky(case).save(shared_tmp_path / "sky.zarr")
    comm.barrier()
    store = distsep.open_observation(shared_tmp_path / "sky.zarr")
    kept = None
    if comm.rank == 0:
        kept = bits.separate(case, serial(), 1, store, shared_tmp_path / "kept.zarr")
    kept = comm.bcast(kept)
    monkeypatch.setattr(source, "RESIDENT", 0)
    monkeypatch.setattr(source, "PART", 1)
    devices = 2 if comm.size == 1 else 1
    streamed = shared_tmp_path / "streamed.zarr"
    require_same(bits.separate(case, comm, devices, store, streamed), kept)


def test_ranks_write_the_maps_they_hold(comm, shared_tmp_path):
    """Some hold none; and parts of chunks are refused before anything is fitted."""
    out = shared_tmp_path / "result.zarr"
    mine = bits.part("idle", comm)
    require_same(bits.separate("idle", comm, 1, mine, out), alone("idle"))
    if comm.size == 1:
        return
    with pytest.raises(ValueError, match=r"`separate\(output=.*ranks \[.*multiples of"):
        distsep.separate(
            bits.laws(), part_of_rank(comm), comm=comm, output=shared_tmp_path / "no"
        )
    assert not (shared_tmp_path / "no").exists()


def test_arrays_of_no_pixel_are_a_part_of_the_sky(comm):
    """The last rank has it all: each rank makes its observation from its arrays."""
    rng = np.random.default_rng(71)
    cells = np.arange(1_000)
    maps = rng.normal(size=(len(bits.NU), 2, len(cells)))
    instrument = distsep.Instrument(nu=bits.NU, depth_p=np.full(len(bits.NU), 10.0))

    def found(mine, comm):
        observation = distsep.Observation(
            maps[..., mine],
            instrument,
            stokes="QU",
            nside=64,
            ordering="NEST",
            cell_ids=cells[mine],
        )
        prior = {"Dust.beta_d": (1.5, 0.1), "Synchrotron.beta_pl": (-3.0, 0.1)}
        return distsep.separate(bits.laws(), observation, priors=prior, comm=comm)

    last = comm.rank == comm.size - 1
    result = found(slice(None) if last else slice(0), comm)
    alone = found(slice(None), serial())
    assert result.covariance.tobytes() == alone.covariance.tobytes()
    expected = alone.amplitudes if last else alone.amplitudes[..., :0]
    assert result.amplitudes.tobytes() == expected.tobytes()


def part_of_rank(comm, **changes):
    """An observation that each rank makes of its own arrays."""
    rng = np.random.default_rng(72)
    cells = np.arange(1_000)
    mine = np.array_split(cells, comm.size)[comm.rank]
    maps = rng.normal(size=(len(bits.NU), 2, len(cells)))
    given: dict[str, Any] = {
        "stokes": "QU",
        "nside": 64,
        "ordering": "NEST",
        "cell_ids": cells[mine],
        # Proportional depths: every rank sees another one first.
        "noise_variance": np.linspace(1, 2, len(cells))[mine],
    }
    instrument = distsep.Instrument(nu=bits.NU)
    return distsep.Observation(maps[..., mine], instrument, **given | changes)


PRIOR = {"Dust.beta_d": (1.5, 0.1), "Synchrotron.beta_pl": (-3.0, 0.1)}


def test_ranks_that_see_another_depth_first_agree(comm):
    found = distsep.separate(bits.laws(), part_of_rank(comm), priors=PRIOR, comm=comm)
    alone = distsep.separate(bits.laws(), part_of_rank(serial()), priors=PRIOR)
    assert found.reduced == alone.reduced is not None
    for name, value in alone.parameters.items():
        off = abs(float(found.parameters[name]) - float(value))
        assert off < 1e-9 * float(alone.sigma[name])


def test_whole_chunks_of_proportional_depths(comm):
    """Every rank finds a shape of its own; a third lack a band, in some places."""
    rng = np.random.default_rng(73)
    npix = 13_001
    maps = rng.normal(size=(len(bits.NU), 2, npix))
    maps[3, :, ::3] = np.nan
    depths = np.linspace(1, 2, len(bits.NU))[:, None, None]
    variance = depths * rng.uniform(1, 10, npix)

    def found(comm):
        mine = slice(*Grid.of(npix).rank_pixels(comm.rank, comm.size))
        observation = distsep.Observation(
            maps[..., mine],
            distsep.Instrument(nu=bits.NU),
            stokes="QU",
            nside=64,
            ordering="NEST",
            cell_ids=np.arange(npix)[mine],
            noise_variance=variance[..., mine],
        )
        result = distsep.separate(bits.laws(), observation, priors=PRIOR, comm=comm)
        return mine, result

    mine, result = found(comm)
    _, alone = found(serial())
    assert result.reduced is not None
    assert result.covariance.tobytes() == alone.covariance.tobytes()
    assert result.chi2_total == alone.chi2_total
    np.testing.assert_array_equal(result.amplitudes, alone.amplitudes[..., mine])


def test_ranks_of_different_skies_are_refused(comm):
    if comm.size == 1:
        return
    other = {} if comm.rank else {"coordsys": "C"}
    with pytest.raises(ValueError, match=r"coordsys .*parts of one data set"):
        distsep.separate(bits.laws(), part_of_rank(comm, **other), comm=comm)


def test_ranks_whose_pixels_interlock_are_refused(comm):
    if comm.size == 1:
        return
    cells = np.arange(comm.rank, 1_000, comm.size)
    maps = np.ones((len(bits.NU), 2, len(cells)))
    mixed = distsep.Observation(
        maps,
        distsep.Instrument(nu=bits.NU),
        stokes="QU",
        nside=64,
        ordering="NEST",
        cell_ids=cells,
        noise_variance=1.0,
    )
    with pytest.raises(ValueError, match=r"rank 0 holds NEST pixels 0 to .*overlap"):
        distsep.separate(bits.laws(), mixed, comm=comm)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Compiled programs are kept from one number of ranks to the next."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.mark.slow
@pytest.mark.parametrize(("n", "devices"), [(2, [2]), (3, [1, 2]), (4, [1, 2])])
def test_two_three_and_four_ranks(n, devices, mpirun, kept, tmp_path):
    """Each with another number of threads, and of those of the linear algebra."""
    threads = {"NPROC": str(n - 1), "OMP_NUM_THREADS": str(n - 1)}
    out, env = tmp_path / "found.npz", kept | threads
    program = "-m", "mpi4py", Path(bits.__file__), out, *devices
    ran = mpirun(n, *program, env=env, timeout=600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    with np.load(out) as found:
        for case, k in ((case, k) for case in bits.SKIES for k in devices):
            of_case = {name: found[f"{case} {k} {name}"] for name in alone(case)}
            require_same(of_case, alone(case))


SKY = """
[sky]
nside = 64
stokes = "QU"
seed = 2
latitude = 10.0
[instrument]
preset = "LiteBIRD"
[[component]]
kind = "CMB"
amplitude = { random = 3.0 }
[[component]]
kind = "Dust"
nu0 = 353.0
amplitude = { random = 30.0 }
[output]
store = "sky.zarr"
"""
RUN = """
[observation]
store = "sky.zarr"
[[component]]
kind = "CMB"
[[component]]
kind = "Dust"
nu0 = 353.0
beta_d = { patches = { nside = 2 } }
"""


def contents(path):
    """Every chunk of a store, and what its header says but for how it was cut."""
    chunks = {
        str(f.relative_to(path)): f.read_bytes()
        for f in path.rglob("*")
        if f.is_file() and f.name != "zarr.json"
    }
    header = json.loads((path / "zarr.json").read_text())["attributes"]
    return chunks | {k: v for k, v in header.items() if k not in ("run", "provenance")}


@pytest.mark.slow
def test_the_command_writes_the_same_store_however_it_is_cut(mpirun, kept, tmp_path):
    """1 to 4 ranks of 1 and 2 devices, blocks of 4096 pixels, none that divides."""
    (tmp_path / "sky.toml").write_text(SKY)
    (tmp_path / "run.toml").write_text(RUN)

    def command(n, *words):
        done = mpirun(n, "-m", "distsep", *words, cwd=tmp_path, env=kept, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]

    command(1, "simulate", "sky.toml")
    expected = {}
    for n, devices in ((1, 1), (1, 2), (2, 2), (3, 1), (4, 2)):
        name = f"result_{n}_{devices}.zarr"
        command(n, "run", "run.toml", "-o", name, "--devices", devices)
        found = contents(tmp_path / name)
        expected = expected or found
        assert found.keys() == expected.keys()
        assert [k for k in found if found[k] != expected[k]] == []
    assert len([k for k in expected if k.startswith("amplitudes")]) > 4


def test_residuals_of_a_pixel_that_is_alone_in_its_chunk(tmp_path, monkeypatch):
    """In a part of its own, or among all: the same bits."""
    rng, npix = np.random.default_rng(74), 4097
    instrument = distsep.Instrument(nu=bits.NU, depth_i=np.full(len(bits.NU), 10.0))
    maps = 50 * rng.normal(size=(len(bits.NU), 1, npix))
    cells = np.arange(npix)
    whole = distsep.Observation(
        maps, instrument, stokes="I", nside=64, ordering="NEST", cell_ids=cells
    )
    whole.save(tmp_path / "sky.zarr")
    asked = {"residuals": True, "amplitude_covariance": ["CMB"], "priors": PRIOR}
    kept = distsep.separate(bits.laws(), whole, **asked)
    monkeypatch.setattr(source, "RESIDENT", 0)
    monkeypatch.setattr(source, "PART", 1)
    store = distsep.open_observation(tmp_path / "sky.zarr")
    out = tmp_path / "result.zarr"
    streamed = distsep.separate(bits.laws(), store, output=out, **asked)
    read = distsep.read(out)
    for name in ("residuals", "amplitudes", "amplitude_covariance"):
        assert getattr(read, name).tobytes() == getattr(kept, name).tobytes()
    assert streamed.residual_power.tobytes() == kept.residual_power.tobytes()
