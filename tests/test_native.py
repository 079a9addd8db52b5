"""The compiled kernels against the XLA programs, which dense matrices check."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distsep.inference.likelihood import (
    Block,
    Tables,
    block_curvature,
    block_value_gradient,
)
from distsep.inference.packing import Lanes, RawMaps, Whitening, chunked, joined, pack
from distsep.inference.pixels import block_amplitudes
from distsep.inference.reduce import block_root
from distsep.model.entries import Entries
from distsep.native import build
from distsep.native import kernels as native

NROW, NPOOL = 7, 3
VALUE_GRADIENT = jax.jit(block_value_gradient, static_argnums=2)
CURVATURE = jax.jit(block_curvature, static_argnums=2)

needs_kernels = pytest.mark.skipif(not native.state()[0], reason=native.state()[1])


def make_tables(rng, ncomp, nglobal=0, nregional=0, nrow=NROW, nkind=2):
    """Tables of some pools, the mixing matrices random but well apart."""
    A = np.cos(np.outer(np.arange(nrow) + 0.5, np.arange(ncomp)) * np.pi / nrow)
    A = A + 0.05 * rng.normal(size=(NPOOL, nrow, ncomp))
    Q, R = np.linalg.qr(A)
    ncolumn = ncomp + nregional
    d2A = rng.normal(size=(NPOOL, nkind, nkind, nrow, ncolumn))
    tables = Tables(
        A=A,
        Q=Q,
        Rinv=np.linalg.inv(R),
        dA=entries(rng.normal(size=(NPOOL, nkind, nrow, ncolumn))),
        d2A=entries(d2A + np.swapaxes(d2A, 1, 2)),
        regional=rng.normal(size=(NPOOL, nrow, nregional)),
        phi=rng.normal(size=(NPOOL, nglobal, nrow)),
        alpha=rng.normal(size=(NPOOL, nglobal)),
    )
    return jax.tree.map(jnp.asarray, tables)


def entries(derivative):
    """Those of every pool."""
    return jax.vmap(Entries.full)(jnp.asarray(derivative))


@needs_kernels
@pytest.mark.parametrize(
    ("ncomp", "template", "nregional", "tile"),
    [
        *((n, (), 0, tile) for n in (1, 3, 6) for tile in (8, 24, 64, 256)),
        *((3, (1, 0, 1), 0, tile) for tile in (8, 24, 64, 256)),
        *((2, (0, 1, 1), 2, tile) for tile in (8, 24, 64, 256)),
        *((n, (), 0, 64) for n in (2, 4, 5)),
        *((3, (), 0, tile) for tile in (16, 32)),
        (5, (1, 0, 1), 0, 24),
    ],
)
def test_sums_over_samples_with_their_own_variances(ncomp, template, nregional, tile):
    rng = np.random.default_rng(tile + ncomp)
    T = make_tables(rng, ncomp, len(template), nregional)
    check_sums(rng, T, tile, template)


@needs_kernels
@pytest.mark.parametrize("template", [(), (1, 0)])
def test_sums_of_a_model_without_parameters(template):
    rng = np.random.default_rng(3)
    T = make_tables(rng, 2, len(template), nkind=0)
    check_sums(rng, T, 32, template)


@needs_kernels
def test_arrays_that_do_not_fit_are_refused():
    """Each would be read beyond its end."""
    rng = np.random.default_rng(4)
    T, shape, pool = make_tables(rng, 3), (1, 4, NROW, 64), jnp.zeros((1, 2), jnp.int32)
    x = jnp.ones(shape)
    good = Block(x, jnp.ones((1, 4, 0, 64)), pool, w=x)
    assert native.value_gradient(T, good, ()).shape == (1, 2, 3)
    wrong = [
        ("w is like d", T, good._replace(w=x[:, :, 1:])),
        ("t is like d", T, good._replace(t=jnp.ones((1, 3, 0, 64)))),
        ("lanes", T, good._replace(d=x[..., :4], w=x[..., :4], t=good.t[..., :4])),
        ("whole tiles", T, good._replace(pool=jnp.zeros((1, 3), jnp.int32))),
        ("rows of d", T._replace(A=T.A[:, 1:]), good),
        ("rows and columns of A", T._replace(dA=cut_entries(T.dA, rows=1)), good),
        ("rows and columns of A", T._replace(dA=cut_entries(T.dA, places=1)), good),
        ("rows and columns of A", T._replace(dA=cut_entries(T.dA, kinds=1)), good),
        ("rows and columns of A", T._replace(dA=cut_entries(T.dA, columns=1)), good),
        ("rows of d", T._replace(phi=T.phi[:, :, 1:]), good),
        ("one to six", make_tables(rng, 7), good),
    ]
    for words, tables, block in wrong:
        with pytest.raises(Exception, match=words):
            native.value_gradient(tables, block, ())
        with pytest.raises(Exception, match=words):
            native.curvature(tables, block, ())
    for less in ({"rows": 1}, {"places": 1}):
        with pytest.raises(Exception, match="d2A is like dA"):
            native.curvature(T._replace(d2A=cut_entries(T.d2A, **less)), good, ())
    with pytest.raises(Exception, match="a template"):
        native.value_gradient(make_tables(rng, 3, 1), good, (0,))


def cut_entries(x, rows=0, places=0, kinds=0, columns=0):
    """Entries that lack something."""
    shape = x.shape[0] - kinds, x.shape[1] - columns
    return replace(x, value=x.value[..., rows:], places=x.places[places:], shape=shape)


@needs_kernels
def test_maps_that_do_not_fit_are_refused():
    whitening, maps, lanes = sky(np.random.default_rng(5))
    T = make_tables(np.random.default_rng(5), 3)
    wrong = [
        ("rows of white", whitening, maps._replace(d=maps.d[2:]), lanes),
        ("pixels of d", whitening, maps._replace(t=maps.t[:, 1:]), lanes),
        ("weight", whitening, maps._replace(weight=jnp.ones((1, 3))), lanes),
        ("shape of white", whitening._replace(white=jnp.ones((1, 2, 3))), maps, lanes),
        ("whole tiles", whitening, maps, cut_tiles(lanes, 3)),
    ]
    for words, *arguments in wrong:
        with pytest.raises(Exception, match=words):
            native.root(*arguments)
        with pytest.raises(Exception, match=words):
            native.amplitudes(T, *arguments, ())
    with pytest.raises(Exception, match="rows of white"):
        native.amplitudes(T._replace(Q=T.Q[:, 1:]), whitening, maps, lanes, ())
    with pytest.raises(Exception, match="columns of Q"):
        native.amplitudes(T._replace(Rinv=T.Rinv[:, 1:]), whitening, maps, lanes, ())


def cut_tiles(lanes, n):
    return lanes._replace(pool=lanes.pool[:, :n], noise_class=lanes.noise_class[:, :n])


@needs_kernels
@pytest.mark.parametrize("tile", [8, 192])
@pytest.mark.parametrize("nslope", range(7))
def test_sums_where_some_columns_do_not_move(tile, nslope):
    """As for laws: each parameter moves one column or two."""
    rng = np.random.default_rng(nslope)
    T = make_tables(rng, 3)
    dA = np.zeros((NPOOL, 2, NROW, 3))
    moves = np.zeros(6, bool)
    moves[rng.permutation(6)[:nslope]] = True
    np.copyto(dA, T.dA.dense(1), where=moves.reshape(2, 1, 3))
    dA[:, :, 0] = 0  # the band at nu0
    d2A = np.einsum("pkrc,pmrc->pkmrc", dA, dA)
    T = T._replace(dA=not_zero(dA), d2A=not_zero(d2A))
    assert len(T.dA.places) == nslope
    check_sums(rng, T, tile, ())


@needs_kernels
@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("template", [(), (1, 0, 1)])
def test_sums_where_the_first_column_is_one(template, moves):
    """In some pools; it may move all the same, as a power law of index 0 does."""
    rng = np.random.default_rng(7)
    T = make_tables(rng, 3, len(template))
    dA = np.array(T.dA.dense(1))
    dA[..., 0] *= moves
    d2A = np.einsum("pkrc,pmrc->pkmrc", dA, dA)
    A = T.A.at[1:, :, 0].set(1.0)
    T = T._replace(A=A, dA=not_zero(dA), d2A=not_zero(d2A))
    check_sums(rng, T, 24, template)


def not_zero(derivative):
    """Entries of the columns that are not zero in every pool."""
    x = np.moveaxis(derivative, -2, -1)
    found = np.argwhere(x.any((0, -1))).tolist()
    columns = {(*p,): jnp.asarray(x[(slice(None), *p)]) for p in found}
    shape = derivative.shape[1], derivative.shape[-1]
    made = Entries.of(columns, shape, (NPOOL, NROW))
    np.testing.assert_array_equal(made.dense(derivative.ndim - 3), derivative)
    return made


def check_sums(rng, T, tile, template, weighted=True):
    """Compare the sums of every tile of some blocks with those of the programs."""
    ntile, nblock = 6, 2
    shape = nblock, NROW, ntile * tile
    w = rng.uniform(0.5, 2, shape)
    w[:, :, ::5] = 0  # empty lanes
    w[:, 0, ::3] = 0  # a band that did not observe
    d = np.where(w > 0, 10 * rng.normal(size=shape), 0)
    ntemplate = 2 if template else 0
    t = rng.normal(size=(nblock, ntemplate, ntile * tile))
    pool = rng.integers(NPOOL, size=(nblock, ntile), dtype=np.int32)
    blocks = [
        Block(*map(jnp.asarray, (d[b], t[b], pool[b], w[b]))) for b in range(nblock)
    ]
    if not weighted:
        blocks = [b._replace(w=None) for b in blocks]
    cut = [chunked(b, native.LANES) for b in blocks]
    for one, other in zip(blocks, cut, strict=True):
        np.testing.assert_array_equal(joined(other).d, one.d)
    together = jax.tree.map(lambda *x: jnp.stack(x), *cut)
    for mine, program in [
        (native.value_gradient, VALUE_GRADIENT),
        (native.curvature, CURVATURE),
    ]:
        found = mine(T, together, template)
        expected = np.stack([program(T, b, template) for b in blocks])
        scale = np.abs(expected).max((0, 1))
        scale = np.where(scale > 1e-9, scale, 1.0)  # regional terms do not bend
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-11)


@needs_kernels
@pytest.mark.parametrize("tile", [8, 24, 64, 256])
@pytest.mark.parametrize(("ncomp", "template"), [(1, ()), (3, ()), (6, (0, 1, 1))])
def test_sums_over_whitened_samples(ncomp, template, tile):
    """Without variances, and the columns of A orthonormal."""
    rng = np.random.default_rng(tile + ncomp)
    T = make_tables(rng, ncomp, len(template), 2 if template else 0)
    one = jnp.broadcast_to(jnp.eye(ncomp), (NPOOL, ncomp, ncomp))
    T = T._replace(A=T.Q, Rinv=one)
    check_sums(rng, T, tile, template, weighted=False)


@needs_kernels
def test_threads_that_meet_find_the_same_bits():
    """Many small tiles, called from several threads at once."""
    rng = np.random.default_rng(6)
    T = make_tables(rng, 3)
    x = jnp.asarray(rng.normal(size=(4, 1000, NROW, 8)))
    pool = jnp.asarray(rng.integers(NPOOL, size=(4, 1000), dtype=np.int32))
    block = Block(x, jnp.zeros((4, 1000, 0, 8)), pool, w=x**2)
    program = jax.jit(lambda T, block: native.value_gradient(T, block, ()))
    expected = np.asarray(program(T, block))
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda _: np.asarray(program(T, block)), range(200))
    assert all(f.tobytes() == expected.tobytes() for f in found)
    alone = np.concatenate(
        [
            program(T, Block(*(None if y is None else y[b : b + 1] for y in block)))
            for b in range(4)
        ]
    )
    assert alone.tobytes() == expected.tobytes()


def sky(
    rng, *, kind="diagonal", dtype=float, sorted_lanes=False, weight=True, tile=128
):
    """Two blocks of maps, QU, whose noise has a shape: whitening, maps, lanes."""
    nblock, block, ngroup = 2, 256, 2
    npix = nblock * block
    white = rng.uniform(0.5, 2, size=(2, NROW))
    white[1, 2] = 0  # the class of samples that lack this band
    if kind == "dense":
        white = white[:, :, None] * rng.normal(size=(2, NROW, NROW))
    d = 10 * rng.normal(size=(NROW * ngroup, npix)).astype(dtype)
    t = rng.normal(size=(2 * ngroup, npix))
    lanes = ngroup * block
    index = None
    if sorted_lanes:
        index = np.stack([rng.permutation(lanes) for _ in range(nblock)])
        index = np.where(rng.random(index.shape) < 0.1, -1, index).astype(np.int32)
    number = rng.integers(2, size=(nblock, lanes // tile), dtype=np.int32)
    if index is None:
        d[2 * ngroup :: NROW * ngroup, ::7] = np.nan
    root = rng.uniform(0.5, 2, (1, npix)) if weight else None
    arrays = RawMaps(jnp.asarray(d), jnp.asarray(t), root, None)
    whitening = Whitening(jnp.asarray(white), jnp.asarray([1.0, 0.7]))
    return whitening, arrays, Lanes(index, number % 3, number)


def cut(maps, lanes, b):
    """One block of them."""
    npix = maps.d.shape[1] // len(lanes.pool)
    one = slice(b * npix, (b + 1) * npix)
    own = RawMaps(*(None if x is None else x[:, one] for x in maps))
    return own, Lanes(*(None if x is None else x[b] for x in lanes))


CASES = [
    {},
    {"weight": False},
    {"dtype": np.float32},
    {"sorted_lanes": True},
    {"sorted_lanes": True, "weight": False, "tile": 32},
    {"sorted_lanes": True, "dtype": np.float32, "tile": 256},
    {"dtype": np.float32, "tile": 32},
    {"kind": "dense"},
    {"kind": "dense", "sorted_lanes": True},
]


@needs_kernels
@pytest.mark.parametrize("case", CASES, ids=str)
def test_roots_have_the_same_square(case):
    rng = np.random.default_rng(5)
    whitening, maps, lanes = sky(rng, **case)
    n = NROW + 2
    found = np.asarray(native.root(whitening, maps, lanes)).reshape(2, -1, n, n)
    for b in range(2):
        block = pack(whitening, *cut(maps, lanes, b))
        x = np.concatenate([block.d, block.t]).reshape(n, found.shape[1], -1)
        expected = np.einsum("itl,jtl->tij", x, x)
        squares = np.einsum("tki,tkj->tij", found[b], found[b])
        scale = np.sqrt(np.einsum("tii->ti", expected))
        scale = np.maximum(scale[:, :, None] * scale[:, None, :], 1e-300)
        np.testing.assert_allclose(
            squares / scale, expected / scale, rtol=0, atol=1e-13
        )


@needs_kernels
@pytest.mark.parametrize("where", ["everywhere", "in a corner"])
def test_roots_keep_the_noise_under_a_signal_of_ten_million_times_its_size(where):
    """What is left of the root across the signal: that of the samples themselves."""
    rng = np.random.default_rng(6)
    npix, nrow = 4096, NROW
    A = np.linalg.qr(rng.normal(size=(nrow, nrow)))[0]
    signal = 1e7 * rng.normal(size=(3, npix))
    if where == "in a corner":
        signal[:, :-100] *= 1e-7  # no first look sees it
    noise = rng.normal(size=(nrow - 3, npix))
    d = A[:, :3] @ signal + A[:, 3:] @ noise
    whitening = Whitening(jnp.ones((1, nrow)), jnp.ones(1))
    zero = jnp.zeros((1, 1), jnp.int32)
    maps = RawMaps(jnp.asarray(d), jnp.zeros((0, npix)), None, None)
    root = np.asarray(native.root(whitening, maps, Lanes(None, zero, zero)))
    found = root.reshape(nrow, nrow) @ A
    # The part across the signal, less what the signal explains of it.
    Q = np.linalg.qr(found[:, :3])[0]
    left = found[:, 3:] - Q @ (Q.T @ found[:, 3:])
    P = np.linalg.qr(signal.T)[0]
    expected = noise - (noise @ P) @ P.T
    np.testing.assert_allclose(left.T @ left, expected @ expected.T, rtol=1e-6, atol=1)


@needs_kernels
@pytest.mark.parametrize("tile", [8, 16, 64, 4096])
@pytest.mark.parametrize("what", ["noise", "twice", "template", "constants", "signal"])
def test_roots_of_rows_that_depend_on_one_another(what, tile):
    """A map given twice, or one that is a template too: no digit of others is lost."""
    rng = np.random.default_rng(9)
    npix, nrow = 4096, 9
    signal = rng.normal(size=(nrow, 3)) @ (100 * rng.normal(size=(3, npix)))
    d = signal + (what != "signal") * rng.normal(size=(nrow, npix))
    t = np.zeros((0, npix))
    if what == "twice":
        d[1] = d[0]
    elif what == "template":
        t = np.stack([d[4], np.ones(npix)])
    elif what == "constants":
        t = np.stack([np.ones(npix), np.full(npix, 2.0)])
    n = nrow + len(t)
    number = jnp.zeros((1, npix // tile), jnp.int32)
    maps = RawMaps(jnp.asarray(d), jnp.asarray(t), None, None)
    whitening = Whitening(jnp.ones((1, nrow)), jnp.ones(1))
    block = Block(maps.d, maps.t, number[0])
    x = np.concatenate([d, t]).reshape(n, -1, tile)
    expected = np.einsum("itl,jtl->tij", x, x)
    scale = np.sqrt(np.einsum("tii->ti", expected))
    scale = scale[:, :, None] * scale[:, None, :]
    for root, digits in [
        (native.root(whitening, maps, Lanes(None, number, number)), 3e-12),
        (jax.jit(block_root, static_argnums=2)(None, block, ()), 1e-10),
    ]:
        found = np.asarray(root).reshape(-1, n, n)
        squares = np.einsum("tki,tkj->tij", found, found)
        np.testing.assert_allclose(
            squares / scale, expected / scale, rtol=0, atol=digits
        )


@needs_kernels
def test_a_band_without_data_leaves_a_column_of_zeros():
    whitening, maps, lanes = sky(np.random.default_rng(7))
    dark = maps.d.at[4:6].set(np.nan)
    found = np.asarray(native.root(whitening, maps._replace(d=dark), lanes))
    n = NROW + 2
    assert (found.reshape(-1, n, n)[:, :, 2] == 0).all()
    assert np.isfinite(found).all()


@needs_kernels
@pytest.mark.parametrize("template", [(), (0, 1, 1)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_amplitudes(case, template):
    rng = np.random.default_rng(8)
    whitening, maps, lanes = sky(rng, **case)
    T = make_tables(rng, 3, len(template))
    found, block_chi2 = native.amplitudes(T, whitening, maps, lanes, template)
    npix = maps.d.shape[1] // 2
    for b in range(2):
        own, places = cut(maps, lanes, b)
        expected = np.asarray(
            block_amplitudes(T, pack(whitening, own, places), template)
        )
        weight = np.ones((1, npix)) if own.weight is None else np.asarray(own.weight)
        root = np.sqrt(np.asarray(whitening.scale)[:, None] * weight).ravel()
        index = np.arange(2 * npix) if places.index is None else places.index
        sky_maps = np.full((4, 2 * npix), np.nan)
        live = index >= 0
        sky_maps[:, index[live]] = expected[:, live]
        sky_maps[:3] /= root
        mine = np.asarray(found)[:, :, b * npix : (b + 1) * npix].reshape(4, -1)
        np.testing.assert_allclose(mine, sky_maps, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(block_chi2[b], expected[3].sum(), rtol=1e-12)


def test_they_are_compiled_where_there_is_a_compiler():
    if build.compiler() is None:
        pytest.skip("no C++ compiler")
    good, words = native.state()
    assert good or "DISTSEP_KERNELS" in words, words


def test_kernels_of_a_later_jaxlib_are_not_taken(monkeypatch):
    """XLA would not start with them."""
    if build.compiler() is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr(native, "version", lambda _: "0.9.2")
    good, words = native.state.__wrapped__()
    assert not good
    assert re.search(r"compiled for jaxlib 0\..*, this is 0.9.2: install", words)


def test_the_switch_is_said(monkeypatch):
    monkeypatch.setenv("DISTSEP_KERNELS", "xla")
    good, words = native.state.__wrapped__()
    assert not good
    assert re.search("switched off by DISTSEP_KERNELS", words)


def test_a_switch_that_is_none_is_refused(monkeypatch):
    """A slip of the pen would cost a factor in time, in silence."""
    monkeypatch.setenv("DISTSEP_KERNELS", "natve")
    with pytest.raises(ValueError, match="DISTSEP_KERNELS=natve: expected `native`"):
        native.state.__wrapped__()
