"""What runs on GPUs only, run here: by threads of the host, or as far as it goes."""

import ctypes
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from test_native import NPOOL, NROW, VALUE_GRADIENT, make_tables

import distsep
from distsep.inference.likelihood import Block
from distsep.native import build, gpu
from distsep.native import kernels as native
from distsep.parallel import mesh as meshes

NTILE, NBLOCK = 3, 2
SUMS = [
    *((n, (), 0, 64, 1, True) for n in (1, 3, 6)),
    *((3, (1, 0, 1), 0, tile, tile // 32, True) for tile in (32, 96)),
    (2, (0, 1, 1), 2, 128, 1, True),
    (3, (), 0, 128, 2, False),
    (6, (0, 1, 1), 2, 64, 1, False),
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


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The kernels in CUDA, run by threads of the host."""
    compiler = build.compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path_factory.mktemp("emulated") / "gpu.so"
    source = Path(__file__).with_name("emulated_gpu.cpp")
    flags = ("-std=c++20", "-O2", "-shared", "-fPIC", "-pthread")
    subprocess.run(
        [compiler, *flags, f"-I{build.HERE}", str(source), "-o", str(path)], check=True
    )
    return ctypes.CDLL(str(path))


def emulated_roots(library, d, t, ntile):
    """`native.gpu.root` of `(block, row, lane)` samples."""
    n = d.shape[1] + t.shape[1]
    out = np.full((len(d), ntile, n, n), np.nan)
    sizes = np.array([len(d), d.shape[1], t.shape[1], ntile, d.shape[2]], np.int32)
    call = library.roots64 if d.dtype == np.float64 else library.roots32
    call(*(np.ctypeslib.as_ctypes(x.ravel()) for x in (d, t, sizes)), out.ctypes)
    return out


def emulated_sums(library, T, block, template, nshare):
    """`native.gpu.value_gradient`, its shares not yet added up."""
    dtype, (nblock, nrow, nlane) = np.dtype(block.d.dtype), block.d.shape
    ntile, nglobal, (nkind, ncolumn) = block.pool.shape[1], len(template), T.dA.shape
    white = block.w is None
    every = block.d, block.w, block.t, T.Q if white else T.A, T.Rinv
    every = [
        None if x is None else np.ascontiguousarray(x, dtype)
        for x in (*every, T.dA.value, T.phi, T.alpha)
    ]
    sizes = nblock, T.A.shape[2], nrow, block.t.shape[1], ntile, nlane, nshare
    places = np.array([*np.ravel(T.dA.places), *template])
    numbers = len(T.dA.places), nglobal, nkind, ncolumn
    numbers = np.array([*sizes, *numbers, *places], np.int32)
    out = np.full((nblock, ntile, nshare, 1 + nkind + nglobal), np.nan)
    at = [None if x is None else x.ctypes.data for x in every]
    call = library.sums64 if dtype == np.float64 else library.sums32
    pool = np.ascontiguousarray(block.pool)
    call((ctypes.c_void_p * 8)(*at), pool.ctypes, numbers.ctypes, out.ctypes)
    return out


def cast(tree, dtype):
    """Its real numbers in another precision."""

    def one(x):
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(one, tree)


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize(
    ("ncomp", "template", "nregional", "tile", "nshare", "weighted"), SUMS
)
def test_value_and_gradient_in_cuda_are_the_same_sums(
    emulated, ncomp, template, nregional, tile, nshare, weighted, precision
):
    rng = np.random.default_rng(tile + ncomp)
    T = make_tables(rng, ncomp, len(template), nregional)
    block, off = samples(rng, tile, weighted, template), 1e-12
    if precision == "single":
        T, block = cast((T, block), jnp.float32)
        off = 1e-4
    found = emulated_sums(emulated, T, block, template, nshare).sum(2)
    T, block = cast((T, block), jnp.float64)
    one = [jax.tree.map(lambda x, b=b: x[b], block) for b in range(NBLOCK)]
    expected = np.stack([VALUE_GRADIENT(T, x, template) for x in one])
    scale = np.abs(expected).max((0, 1))
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=off)


def for_gpus(program, target, *arrays):
    """A program for GPUs, as far as it goes without one, and its text."""
    known = [export.DisabledSafetyCheck.custom_call(target)]
    call = export.export(jax.jit(program), platforms=["cuda"], disabled_checks=known)
    found = call(*arrays)
    return found, found.mlir_module()


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("nkind", [0, 2])
def test_value_and_gradient_on_a_gpu_are_a_call_of_the_kernel_in_cuda(nkind, weighted):
    """As far as it goes without a GPU: of one warp for each thousand lanes."""
    rng = np.random.default_rng(7)
    T = make_tables(rng, 3, 2, nkind=nkind)
    block = samples(rng, 2048, weighted, (0, 1))
    assert gpu.takes(T, block)
    arrays, tree = jax.tree.flatten((T, block))
    target = "distsep_gpu_value_gradient"

    def program(*arrays):
        return gpu.value_gradient(*jax.tree.unflatten(tree, arrays), (0, 1))

    found, module = for_gpus(program, target, *arrays)
    assert module.count(f"@{target}(") == 1
    assert f"-> tensor<{NBLOCK}x{NTILE}x2x{3 + nkind}xf64>" in module
    (out,) = found.out_avals
    assert (out.shape, out.dtype) == ((NBLOCK, NTILE, 3 + nkind), jnp.float64)


def test_samples_that_no_kernel_takes():
    rng = np.random.default_rng(8)
    T, block = make_tables(rng, 3), samples(rng, 64, True, ())
    assert gpu.takes(T, block)
    assert not gpu.takes(make_tables(rng, 7), block)
    assert not gpu.takes(make_tables(rng, 3, nkind=33), block)  # 99 columns move
    assert not gpu.takes(T, block._replace(invN=block.d))
    assert not gpu.takes(T, samples(rng, 16, True, ()))
    many = make_tables(rng, 3, nrow=33)
    assert not gpu.takes(many, block._replace(d=jnp.ones((NBLOCK, 33, NTILE * 64))))


ROOTS = {
    "faint": (3, 0, 15, 0, 1, 512, np.float64),
    "bright where no sample is taken first": (0.1, 8, 15, 0, 1, 2048, np.float64),
    "a tile": (1e2, 0, 15, 0, 1, 256, np.float64),
    "bright, and brighter": (1e7, 3, 15, 0, 1, 512, np.float64),
    "templates": (1e4, 1, 13, 2, 2, 64, np.float64),
    "more rows": (1e3, 1, 20, 3, 1, 128, np.float64),
    "single precision": (1e3, 1, 15, 1, 2, 128, np.float32),
}


@pytest.mark.parametrize("case", ROOTS)
def test_roots_in_cuda_are_those_of_a_qr_factorisation(emulated, case):
    """To what float64 leaves of the noise, however bright the signal."""
    size, steep, nrow, ntemplate, ntile, nlane, dtype = ROOTS[case]
    rng = np.random.default_rng(11)
    A, s = rng.normal(size=(nrow, 3)), size * rng.normal(size=(2, 3, nlane))
    s *= np.exp(steep * np.linspace(-1, 1, nlane))
    d = (np.einsum("rc,bcl->brl", A, s) + rng.normal(size=(2, nrow, nlane))).astype(
        dtype
    )
    t = rng.normal(size=(2, ntemplate, nlane)).astype(dtype)
    roots = emulated_roots(emulated, d, t, ntile)
    assert (np.tril(roots, -1) == 0).all()
    x = np.concatenate([d, t], 1).astype(float).reshape(2, -1, ntile, nlane // ntile)
    for b, k in np.ndindex(2, ntile):
        R = np.linalg.qr(x[b, :, k].T, mode="r")
        ratio = np.linalg.solve(R.T, roots[b, k].T).T
        off = np.abs(ratio.T @ ratio - np.eye(len(R))).max()
        assert off < 1e-12 + 300 * np.finfo(float).eps * size * np.exp(steep)


def test_roots_in_cuda_of_rows_that_are_zero_or_the_same(emulated):
    rng = np.random.default_rng(12)
    d = rng.normal(size=(1, 6, 256))
    d[:, 1] = 0  # a band that did not observe
    d[:, 2, :200] = 0  # a template of some pixels
    d[:, 4] = 2 * d[:, 3]
    d[:, 5] = d[:, 0] + 1e-9 * d[:, 5]
    (root,) = emulated_roots(emulated, d, np.zeros((1, 0, 256)), 1)[0]
    assert (root[:, 1] == 0).all()
    x = d[0]
    scale = np.sqrt(np.diagonal(x @ x.T))
    scale[1] = 1
    np.testing.assert_allclose(
        root.T @ root / np.outer(scale, scale),
        x @ x.T / np.outer(scale, scale),
        rtol=0,
        atol=1e-13,
    )
    # The difference of two rows that are almost the same is kept.
    left = np.linalg.norm(root[:, 5] - root[:, 0])
    np.testing.assert_allclose(left, np.linalg.norm(x[5] - x[0]), rtol=1e-6)


def test_roots_in_cuda_of_a_sky_without_noise(emulated):
    """Fifteen bands, of which three make up the others: nothing but their last bits."""
    rng = np.random.default_rng(13)
    A, s = rng.normal(size=(15, 3)), rng.normal(size=(3, 1024))
    s *= np.exp(4 * np.linspace(-1, 1, 1024))
    x = A @ s
    (root,) = emulated_roots(emulated, x[None], np.zeros((1, 0, 1024)), 1)[0]
    scale = np.sqrt(np.diagonal(x @ x.T))
    off = (root.T @ root - x @ x.T) / np.outer(scale, scale)
    assert np.abs(off).max() < 1e-13
    # What is left of the others is not more than that.
    across = np.linalg.svd(A)[0][:, 3:]
    assert np.linalg.norm(root @ across, axis=0).max() < 1e-13 * scale.max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_roots_on_a_gpu_are_a_call_of_the_kernel_in_cuda(dtype):
    """As far as it goes without a GPU; some blocks at a time, as `over_blocks` does."""
    target = "distsep_gpu_root"

    def program(d, t):
        return jax.vmap(lambda d, t: gpu.root(d, t, 2))(d, t)

    arrays = jnp.ones((5, 7, 64), dtype), jnp.ones((5, 1, 64), dtype)
    found, module = for_gpus(program, target, *arrays)
    assert module.count(f"@{target}(") == 1
    (out,) = found.out_avals
    assert (out.shape, out.dtype) == ((5, 2, 64), jnp.float64)


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
