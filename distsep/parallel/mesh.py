"""The devices of one rank, as a one-dimensional mesh with the axis "pix".

The only door to `jax.sharding`. Nothing here communicates between ranks.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

AXIS = "pix"
# Blocks that a device works on together. A processor has one in its cache; the
# thousands of lanes of one block leave an accelerator waiting for the next program.
_TOGETHER = {"cpu": 1}
_TOGETHER_ELSEWHERE = 64


def set_host_devices(n: int) -> None:
    """Make JAX see the host's processor as `n` devices.

    Args:
        n: Number of devices.

    Raises:
        ValueError: if `n` is not positive.
        RuntimeError: if JAX has started already with another number of devices.

    Communication: none.
    """
    if n < 1:
        raise ValueError(f"`set_host_devices(n)` expected a positive number, got {n}.")
    try:
        jax.config.update("jax_num_cpu_devices", n)
    except RuntimeError as error:
        if jax.local_device_count("cpu") != n:
            raise RuntimeError(
                f"`set_host_devices({n})` came too late: JAX has started with "
                f"{jax.local_device_count('cpu')} devices. Call it before any "
                "computation, or use `distsep run --devices`."
            ) from error


def device_mesh(n: int | None = None) -> Mesh:
    """The first `n` local devices of this rank, axis "pix".

    Args:
        n: Number of devices; all by default.

    Returns:
        The mesh.

    Raises:
        ValueError: if this rank has fewer devices, or `n` is no whole number.

    Communication: none.
    """
    devices = jax.local_devices()
    n = len(devices) if n is None else n
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise ValueError(
            f"`devices={n!r:.80}`: expected a number of devices, or None for all "
            f"{len(devices)} of this rank."
        )
    if not 1 <= n <= len(devices):
        raise ValueError(
            f"`devices={n}`: this rank has {len(devices)} device(s). On a host "
            "without GPUs give `distsep run --devices N`, or call "
            "`set_host_devices(N)` before the first computation."
        )
    return Mesh(np.array(devices[:n]), (AXIS,))


def together(mesh: Mesh) -> int:
    """Blocks that a device works on together: its share is a multiple of them."""
    return _TOGETHER.get(mesh.devices.flat[0].platform, _TOGETHER_ELSEWHERE)


def spread(mesh: Mesh, tree: Any) -> Any:
    """Put arrays on the devices, the leading axis cut into equal shares.

    Args:
        mesh: Devices of this rank.
        tree: Array or pytree of arrays, numpy or jax.

    Returns:
        The same tree of sharded jax arrays.

    Raises:
        ValueError: if a leading axis is not a multiple of the number of devices.

    Communication: none between ranks.
    """
    return _put("spread", mesh, tree, 0, PartitionSpec(AXIS))


def spread_maps(mesh: Mesh, tree: Any) -> Any:
    """Put `(row, pixel)` arrays on the devices, the pixels cut into equal shares.

    On one device of a processor nothing is copied, where the memory allows it.

    Args, Returns, Raises, Communication: as `spread`, of the last axis.
    """
    return _put("spread_maps", mesh, tree, 1, PartitionSpec(None, AXIS))


def _put(name: str, mesh: Mesh, tree: Any, axis: int, spec: PartitionSpec) -> Any:
    for leaf in jax.tree.leaves(tree):
        if leaf.shape[axis] % mesh.size:
            raise ValueError(
                f"`{name}(mesh, tree)` expected axes of blocks that {mesh.size} "
                f"devices can share, got shape {leaf.shape}: pad it with blocks of no "
                "weight."
            )
    return jax.device_put(tree, NamedSharding(mesh, spec))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Put a copy of each array on every device of this rank.

    What is on the one device there is stays as it is: a small step would feel it.

    Communication: none between ranks.
    """
    if mesh.size == 1 and all(
        isinstance(x, jax.Array) and x.devices() == {mesh.devices.item()}
        for x in jax.tree.leaves(tree)
    ):
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def single(tree: Any) -> Any:
    """Put arrays on the first local device, wherever they were.

    Communication: none between ranks.
    """
    return jax.device_put(tree, SingleDeviceSharding(jax.local_devices()[0]))


# Kept: a campaign separates many skies with one compiled program.
@lru_cache(maxsize=64)
def over_blocks(mesh: Mesh, function: Callable[..., Any]) -> Callable:
    """Run a function of one block over all blocks of this rank, some at a time.

    Every block goes through the same compiled code whatever the number of devices.
    Two things keep its results the same to the last bit: whatever is common to the
    blocks enters as `shared`, computed before and elsewhere; and each device has at
    least two times `together(mesh)` blocks (XLA compiles a loop of one step
    differently).

    Args:
        mesh: Devices of this rank.
        function: Takes `(shared, maps, block)`, returns arrays; traceable by JAX.

    Returns:
        A jitted function of `(shared, maps, blocks)`: `shared` is replicated; `maps`
        is a tree of `(row, pixel)` arrays, the pixels of all blocks side by side (they
        are cut, not copied), and may be empty; the arrays of `blocks` have a leading
        axis of blocks, and so have the results, which stay spread over the devices.

    Communication: none.
    """
    count = together(mesh)
    some = jax.vmap(function, in_axes=(None, 1, 0)) if count > 1 else function

    def local(shared: Any, maps: Any, blocks: Any) -> Any:
        nblocks = jax.tree.leaves(blocks)[0].shape[0]

        def cut(x: Any, i: Any) -> Any:
            size = x.shape[1] // nblocks * count
            own = jax.lax.dynamic_slice_in_dim(x, i * size, size, 1)
            return own if count == 1 else own.reshape(len(x), count, size // count)

        def step(x: Any) -> Any:
            i, own = x
            return some(shared, jax.tree.map(lambda x: cut(x, i), maps), own)

        nsteps = nblocks // count
        if count == 1:
            return jax.lax.map(step, (jnp.arange(nsteps), blocks))
        groups = jax.tree.map(lambda x: x.reshape(nsteps, count, *x.shape[1:]), blocks)
        found = jax.lax.map(step, (jnp.arange(nsteps), groups))
        return jax.tree.map(lambda x: x.reshape(nblocks, *x.shape[2:]), found)

    return _on_every_device(mesh, local, PartitionSpec(AXIS))


@lru_cache(maxsize=64)
def over_shares(mesh: Mesh, function: Callable[..., Any], axes: Any = 0) -> Callable:
    """Run a function of all blocks of a device at once, on every device.

    For kernels that go through the blocks themselves, each in the same way.

    Args:
        mesh: Devices of this rank.
        function: Takes `(shared, maps, blocks)` as `over_blocks` does, the share of one
            device each; traceable by JAX.
        axes: Axis along which each result stays spread over the devices.

    Returns:
        A jitted function of `(shared, maps, blocks)`.

    Communication: none.
    """
    out = jax.tree.map(lambda axis: PartitionSpec(*[None] * axis, AXIS), axes)
    return _on_every_device(mesh, function, out, check_vma=False)


def _on_every_device(mesh: Mesh, local: Callable, out_specs: Any, **options: Any):
    """Run a function of `(shared, maps, blocks)` on every device, on its share.

    Arrays without elements are made there: XLA of jaxlib 0.11 crashes where a program
    of several devices takes them as arguments.
    """
    specs = PartitionSpec(), PartitionSpec(None, AXIS), PartitionSpec(AXIS)

    def function(*arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        spec = [
            s
            for s, x in zip(specs, arguments, strict=True)
            for _ in range(jax.tree.structure(x).num_leaves)
        ]
        kept = [k for k, x in enumerate(leaves) if x.size]

        def whole(*given: Any) -> Any:
            every = [
                None if x.size else jnp.zeros(_share(mesh, s, x), x.dtype)
                for s, x in zip(spec, leaves, strict=True)
            ]
            for k, x in zip(kept, given, strict=True):
                every[k] = x
            return local(*jax.tree.unflatten(tree, every))

        mapped = jax.shard_map(
            whole,
            mesh=mesh,
            in_specs=tuple(spec[k] for k in kept),
            out_specs=out_specs,
            **options,
        )
        return mapped(*(leaves[k] for k in kept))

    return jax.jit(function)


def _share(mesh: Mesh, spec: PartitionSpec, x: Any) -> tuple[int, ...]:
    """Shape of one device's share of an array."""
    return NamedSharding(mesh, spec).shard_shape(x.shape)
