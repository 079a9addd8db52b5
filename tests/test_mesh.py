"""Local devices: the cut into shares changes no number."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distsep.parallel import (
    device_mesh,
    over_blocks,
    replicate,
    set_host_devices,
    single,
    spread,
    spread_maps,
)


def test_the_suite_sees_two_devices():
    assert jax.local_device_count() == 2


def test_mesh_has_the_axis_and_the_devices_asked_for(comm):
    assert device_mesh().axis_names == ("pix",)
    assert device_mesh().size == jax.local_device_count()
    assert device_mesh(1).devices.tolist() == jax.local_devices()[:1]


@pytest.mark.parametrize("n", [0, 3])
def test_mesh_of_devices_that_are_not_there_is_refused(n):
    with pytest.raises(ValueError, match=r"has 2 device\(s\).*--devices"):
        device_mesh(n)


def test_spread_replicate_single_keep_the_values(comm):
    mesh = device_mesh()
    x = np.random.default_rng(comm.rank).normal(size=(6, 3))
    sharded = spread(mesh, {"x": x})["x"]
    assert [shard.data.shape for shard in sharded.addressable_shards] == [(3, 3)] * 2
    copied = replicate(mesh, x)
    assert [shard.data.shape for shard in copied.addressable_shards] == [(6, 3)] * 2
    assert single(sharded).devices() == {jax.local_devices()[0]}
    for array in (sharded, copied, single(sharded)):
        np.testing.assert_array_equal(array, x)


def test_spread_refuses_shares_that_are_not_equal():
    for put, shape in ((spread, (5, 3)), (spread_maps, (3, 5))):
        with pytest.raises(ValueError, match=rf"2 devices.*\({shape[0]}, {shape[1]}\)"):
            put(device_mesh(), np.zeros(shape))


def test_too_late_to_choose_the_number_of_devices():
    set_host_devices(jax.local_device_count())
    with pytest.raises(RuntimeError, match="too late"):
        set_host_devices(3)
    with pytest.raises(ValueError, match="positive"):
        set_host_devices(0)


def test_host_devices_are_made():
    program = (
        "from distsep.parallel import set_host_devices, device_mesh\n"
        "set_host_devices(3)\n"
        "print(device_mesh().size)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout.strip() == "3", done.stderr


def sums_of_a_block(A, d, invN):
    """A kernel with the shapes and operations of one pass of the likelihood."""
    AtNd = A.T @ (invN * d)
    AtNA = jnp.einsum("fc,fp,fe->pce", A, invN, A)
    s = jnp.linalg.solve(AtNA, AtNd.T[..., None])[..., 0].T
    r = d - A @ s
    return {"chi2": jnp.sum(invN * r * r), "G": -(invN * r) @ s.T}


@pytest.mark.parametrize("nblocks", [4, 6])
def test_blocks_have_the_same_bits_on_one_and_two_devices(comm, nblocks):
    """At a production block size: small blocks hide the fault."""
    nf, npix = 15, 4096
    rng = np.random.default_rng(11)
    A = rng.normal(size=(nf, 3))
    maps = rng.normal(size=(nf, nblocks * npix)) * 10
    blocks = rng.uniform(0.5, 2, size=(nblocks, nf, npix))

    def run(n):
        mesh = device_mesh(n)
        table = over_blocks(mesh, sums_of_a_block)(
            replicate(mesh, A), spread_maps(mesh, maps), spread(mesh, blocks)
        )
        return jax.tree.map(np.asarray, single(table))

    one, two = run(1), run(2)
    assert one["G"].shape == (nblocks, nf, 3)
    np.testing.assert_array_equal(one["chi2"], two["chi2"])
    np.testing.assert_array_equal(one["G"], two["G"])
    d, invN = maps[:, :npix], blocks[0]
    chi2 = 0.0
    for p in range(npix):
        root = np.sqrt(invN[:, p])
        chi2 += np.linalg.lstsq(root[:, None] * A, root * d[:, p])[1].item()
    np.testing.assert_allclose(one["chi2"][0], chi2, rtol=1e-10)
    for rank, table in enumerate(comm.allgather(one["G"])):
        np.testing.assert_array_equal(table, one["G"], err_msg=f"rank {rank}")
