"""Which samples share the shape of their noise, and what whitens it."""

import numpy as np
import pytest

from distsep.data.noise import Noise
from distsep.data.samples import groups, marginalise_missing, patterns, rows

NF, NS, NPIX = 5, 2, 40
alone = lambda x: [x]  # noqa: E731  allgather of one rank


def covariances(rng, n):
    draws = rng.normal(size=(n, NF, 2 * NF))
    return draws @ draws.swapaxes(-1, -2)


def observed(rng, share=0.3):
    return rng.random((NF, NS, NPIX)) > share


def marginal(invN, seen):
    """Inverse of the covariance of the bands seen, zero elsewhere: the definition."""
    out = np.zeros_like(invN)
    both = np.ix_(seen, seen)
    out[both] = np.linalg.inv(np.linalg.inv(invN)[both])
    return out


def whitened(noise, seen, joint=False):
    """W^T W of every sample, (group, pix, row, row), scale included."""
    look = patterns(noise, joint, 1 if joint else NS)
    number = look.add(rows(seen, joint))
    nrow = NF * NS if joint else NF
    classes = look.classes(noise, joint, nrow, alone)
    W = classes.white[classes.number[number]]
    W = W[..., None] * np.eye(nrow) if classes.white.ndim == 2 else W
    return classes.scale[:, None, None, None] * (W.swapaxes(-1, -2) @ W)


def test_rows_and_groups_put_stokes_where_they_are_fitted():
    x = np.arange(NF * NS * 3).reshape(NF, NS, 3)
    assert rows(x, joint=False) is x
    assert rows(x, joint=True).shape == (NF * NS, 1, 3)
    np.testing.assert_array_equal(groups(rows(x, joint=True), NS, joint=True), x)


@pytest.mark.parametrize("joint", [False, True])
def test_uniform_noise_is_whitened_on_the_bands_seen(joint):
    rng = np.random.default_rng(9)
    shape, seen = rng.uniform(1, 2, (NF, NS)), observed(rng)
    found = whitened(Noise(shape, "uniform"), seen, joint)
    expected = np.where(rows(seen, joint), rows(shape[:, :, None], joint), 0)
    for g, p in np.ndindex(found.shape[:2]):
        np.testing.assert_allclose(found[g, p], np.diag(expected[:, g, p]), rtol=1e-13)


def test_dense_noise_is_marginalised_over_the_missing_bands():
    rng = np.random.default_rng(10)
    shape, seen = covariances(rng, NS), observed(rng)
    found = whitened(Noise(shape, "dense"), seen)
    for g, p in np.ndindex(found.shape[:2]):
        expected = marginal(shape[g], seen[:, g, p])
        np.testing.assert_allclose(found[g, p], expected, rtol=1e-9, atol=1e-10)


def test_dense_noise_joint_over_stokes():
    rng = np.random.default_rng(11)
    shape, seen = covariances(rng, NS), observed(rng)
    found = whitened(Noise(shape, "dense"), seen, joint=True)
    for p in range(NPIX):
        for g in range(NS):
            at = np.arange(NF) * NS + g  # the Stokes parameter runs fastest
            expected = marginal(shape[g], seen[:, g, p])
            np.testing.assert_allclose(
                found[0, p][np.ix_(at, at)], expected, rtol=1e-9, atol=1e-10
            )


def test_stokes_that_share_a_shape_share_their_classes():
    """Q and U that differ by a factor only are one class, with a scale."""
    rng = np.random.default_rng(12)
    q = rng.uniform(1, 2, NF)
    noise = Noise(np.stack([q, 3 * q], 1), "uniform")
    seen = np.broadcast_to(observed(rng)[:, :1], (NF, NS, NPIX))
    look = patterns(noise, False, NS)
    number = look.add(seen)
    np.testing.assert_array_equal(number[0], number[1])
    found = whitened(noise, seen)
    np.testing.assert_allclose(found[1], 3 * found[0], rtol=1e-13)


def test_the_classes_are_numbered_alike_on_every_rank():
    """Each rank met other patterns: the union is numbered, in one order."""
    rng = np.random.default_rng(13)
    noise, seen = Noise(rng.uniform(1, 2, (NF, NS)), "uniform"), observed(rng)
    cuts = [slice(0, 15), slice(15, 40)]
    looks = [patterns(noise, False, NS) for _ in cuts]
    numbers = [look.add(seen[..., c]) for look, c in zip(looks, cuts, strict=True)]
    lists = [list(look._number) for look in looks]
    made = [look.classes(noise, False, NF, lambda _: lists) for look in looks]
    np.testing.assert_array_equal(made[0].white, made[1].white)
    together = np.concatenate(
        [m.white[m.number[n]] for m, n in zip(made, numbers, strict=True)], axis=1
    )
    whole = patterns(noise, False, NS)
    number = whole.add(seen)
    classes = whole.classes(noise, False, NF, alone)
    np.testing.assert_array_equal(together, classes.white[classes.number[number]])


def test_noise_of_every_pixel_its_own_is_not_whitened():
    rng = np.random.default_rng(14)
    noise = Noise(rng.uniform(1, 2, (NF, NS, NPIX)), "pixel")
    look = patterns(noise, False, NS)
    look.add(observed(rng))
    assert look.classes(noise, False, NF, alone).white is None


def test_marginalise_missing_is_the_inverse_of_a_block_of_the_covariance():
    rng = np.random.default_rng(15)
    invN, seen = covariances(rng, NPIX), observed(rng)[:, 0]
    found = marginalise_missing(np.moveaxis(invN, 0, -1), seen)
    for p in range(NPIX):
        np.testing.assert_allclose(
            found[..., p], marginal(invN[p], seen[:, p]), rtol=1e-9, atol=1e-10
        )
