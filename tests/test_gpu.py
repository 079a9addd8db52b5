"""What runs on accelerators only, run here: by an interpreter, or as far as it goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from test_native import NPOOL, NROW, VALUE_GRADIENT, make_tables

import distsep
from distsep.inference.gpu_sums import value_gradient
from distsep.inference.likelihood import Block
from distsep.native import kernels as native
from distsep.parallel import mesh as meshes

NTILE, NBLOCK = 3, 2
CASES = [
    *((n, (), 0, 64, True) for n in (1, 3, 6)),
    *((3, (1, 0, 1), 0, tile, True) for tile in (32, 256)),
    (2, (0, 1, 1), 2, 128, True),
    (3, (), 0, 256, False),
    (6, (0, 1, 1), 2, 64, False),
]


def samples(rng, tile, weighted, template):
    """Some blocks with empty lanes, and bands that did not observe."""
    shape = NBLOCK, NROW, NTILE * tile
    w = rng.uniform(0.5, 2, shape)
    w[:, :, ::5] = 0
    w[:, 0, ::3] = 0
    d = np.where(w > 0, 10 * rng.normal(size=shape), 0)
    t = rng.normal(size=(NBLOCK, 2 if template else 0, NTILE * tile))
    pool = rng.integers(NPOOL, size=(NBLOCK, NTILE), dtype=np.int32)
    block = Block(*map(jnp.asarray, (d, t, pool, w)))
    return block if weighted else block._replace(w=None)


@pytest.mark.parametrize(("ncomp", "template", "nregional", "tile", "weighted"), CASES)
def test_the_kernel_of_gpus_makes_the_same_sums(
    ncomp, template, nregional, tile, weighted
):
    rng = np.random.default_rng(tile + ncomp)
    T = make_tables(rng, ncomp, len(template), nregional)
    block = samples(rng, tile, weighted, template)
    found = value_gradient(T, block, template, interpret=True)
    one = [jax.tree.map(lambda x, b=b: x[b], block) for b in range(NBLOCK)]
    expected = np.stack([VALUE_GRADIENT(T, x, template) for x in one])
    scale = np.abs(expected).max((0, 1))
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-12)


@pytest.mark.parametrize("nkind", [0, 2])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_kernel_of_gpus_is_written_for_triton(nkind, dtype):
    """As far as it goes without a GPU: the program that Triton would compile."""
    rng = np.random.default_rng(7)
    T, block = make_tables(rng, 3, 2, nkind=nkind), samples(rng, 256, True, (0, 1))

    def cast(x):
        return x.astype(dtype) if x.dtype == jnp.float64 else x

    arrays, tree = jax.tree.flatten(jax.tree.map(cast, (T, block)))

    def program(*arrays):
        return value_gradient(*jax.tree.unflatten(tree, arrays), (0, 1))

    target = "__gpu$xla.gpu.triton"
    known = [export.DisabledSafetyCheck.custom_call(target)]
    found = export.export(jax.jit(program), platforms=["cuda"], disabled_checks=known)(
        *arrays
    )
    assert found.mlir_module().count(f"@{target}(") == 1
    (out,) = found.out_avals
    assert (out.shape, out.dtype) == ((NBLOCK, NTILE, 3 + nkind), dtype)


@pytest.fixture
def several_blocks_at_once(monkeypatch):
    """As on an accelerator: programs of XLA, that work on three blocks together."""
    monkeypatch.setitem(meshes._TOGETHER, "cpu", 3)
    monkeypatch.setattr(native, "usable", lambda: False)
    meshes.over_blocks.cache_clear()
    yield
    meshes.over_blocks.cache_clear()


@pytest.mark.parametrize("noise", ["uniform", "pixel"])
@pytest.mark.parametrize("devices", [1, 2])
def test_blocks_together_are_the_same_blocks(several_blocks_at_once, noise, devices):
    """Of seven blocks, the last part empty: padded to twelve, or to two times six."""
    nside, nu = 64, np.array([40.0, 90.0, 150.0, 350.0])
    cells = np.arange(27_000)
    rng = np.random.default_rng(8)
    laws = [distsep.CMB(), distsep.Dust(150.0, temp=20.0)]
    A = np.asarray(
        distsep.MixingMatrix(laws, distsep.Instrument(nu))({"Dust.beta_d": 1.6})
    )
    d = np.einsum("fc,csp->fsp", A, 30 * rng.normal(size=(2, 2, len(cells))))
    variance = rng.uniform(1, 2, (4, 2, len(cells) if noise == "pixel" else 1))
    d += np.sqrt(variance) * rng.normal(size=d.shape)
    obs = distsep.Observation(
        d,
        distsep.Instrument(nu),
        stokes="QU",
        nside=nside,
        ordering="NEST",
        cell_ids=cells,
        noise_variance=variance,
    )
    assert obs.grid.nblocks == 7

    def result(devices=1):
        return distsep.separate(
            laws, obs, patches={"Dust.beta_d": 2}, devices=devices, tolerance=1e-6
        )

    found = result(devices)
    meshes._TOGETHER["cpu"] = 1
    meshes.over_blocks.cache_clear()
    expected = result()
    off = found.parameters["Dust.beta_d"] - expected.parameters["Dust.beta_d"]
    assert np.nanmax(np.abs(off) / expected.sigma["Dust.beta_d"]) < 1e-5
    np.testing.assert_allclose(found.amplitudes, expected.amplitudes, atol=1e-4)
    np.testing.assert_allclose(found.chi2_total, expected.chi2_total, rtol=1e-9)
