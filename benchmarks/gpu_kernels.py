"""What fraction of the memory bandwidth do the passes reach on one device?

The compiled passes alone, on whatever device JAX has (on CPU use `--smoke`): the
reduction, of this sky and of one a hundred times as bright, and value and gradient on
whitened samples and on samples with noise of their own, in float64 and float32. The
blocks of a small sky are repeated to the size of a large one, so that the right sum is
known: that of plain numpy, times the repeats. Bytes: the samples (and inverse
variances) once. Bandwidth is measured: the sum of an array, and a copy.
"""

from functools import partial

import bench
import numpy as np
import passes
import reference
import skies
import timing

SMALL = 64  # nside of the sky that is repeated
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
TARGET = {"reduction": 0.7, "value + gradient": 0.5}


def bandwidth(nbytes, repeats) -> dict[str, float]:
    """GB/s of a sum, and of a copy that reads and writes."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones(nbytes // 8)
    total, copy = jax.jit(jnp.sum), jax.jit(lambda x: x + 1.0)
    read = timing.measure(lambda: total(x), repeats).low
    both = timing.measure(lambda: copy(x), repeats).low
    return {"sum": x.nbytes / read / 1e9, "copy": 2 * x.nbytes / both / 1e9}


def cast(tree, dtype):
    """The floating-point arrays of a tree in another precision."""
    import jax
    import jax.numpy as jnp

    def one(x):
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(one, tree)


def repeated(blocks, times, dtype):
    """Blocks one after the other, `times` over."""
    import jax
    import jax.numpy as jnp

    def one(x):
        return jnp.tile(x, (times,) + (1,) * (x.ndim - 1))

    return jax.tree.map(one, cast(blocks, dtype))


def programs(small):
    """Name, kernel, noise, and how its rows are checked."""
    from distsep.inference.likelihood import block_value_gradient
    from distsep.inference.reduce import block_root

    def gram(rows, found, times):
        """The sum of all roots squared is that of the samples squared."""
        n = int(round(rows.shape[-1] ** 0.5))
        roots = rows.reshape(-1, n, n).astype(float)
        total = np.einsum("kij,kil->jl", roots, roots)
        x = np.asarray(found.d)
        true = times * np.einsum("bil,bjl->ij", x, x)
        return np.abs(total - true).max() / np.abs(true).max()

    def sums(noise):
        value, gradient = reference.of_sky(small[noise], small[noise].start, skies.NU0)
        true = np.concatenate([[value], *gradient])

        def compare(rows, _, times):
            total = rows.reshape(-1, rows.shape[-1]).astype(float).sum(0) / times
            off = np.abs(total - true) / np.abs(true[1:]).max()
            return max(abs(total[0] / true[0] - 1), off[1:].max())

        return compare

    yield "reduction", block_root, "uniform", gram
    yield "reduction", block_root, "uniform, bright", gram
    yield "value + gradient", block_value_gradient, "uniform", sums("uniform")
    yield "value + gradient", block_value_gradient, "pixel", sums("pixel")


def main():
    """Measure."""
    args = bench.arguments(__doc__, nside=(256, 512, 1024), smoke=(32,))
    import jax

    from distsep.flow import local_devices
    from distsep.inference.passes import packed_program

    nside_small = args.nside[0] if args.smoke else SMALL
    small = {k: skies.make(nside_small, noise=k) for k in ("uniform", "pixel")}
    small["uniform, bright"] = skies.make(nside_small, signal=100.0)
    prepared = {
        k: passes.prepare(s.observation(), skies.components(), None, None, 1)
        for k, s in small.items()
    }
    size = 2**24 if args.smoke else 2**33  # so that starting a program is nothing
    speed = bandwidth(size, args.repeats)
    devices, rows = local_devices(1), []
    for name, kernel, noise, compare in programs(small):
        p = prepared[noise]
        x = np.concatenate(small[noise].start)
        tables = p.problem.own.tables(x)
        for dtype in ("float64", "float32"):
            own = cast(tables, dtype)
            for nside in args.nside:
                times = (nside // nside_small) ** 2
                blocks = repeated(p.blocks, times, dtype)
                program = packed_program(devices, kernel, own, blocks)
                run = partial(program, (own, None), (), blocks)
                timed = timing.measure(run, args.repeats)
                out = np.asarray(run())
                off = compare(out, p.blocks, times)
                good = off < TOLERANCE[dtype]
                nbytes = blocks.d.nbytes + (0 if blocks.w is None else blocks.w.nbytes)
                rate = nbytes / timed.median / 1e9
                rows.append(
                    [
                        name,
                        noise,
                        dtype if out.dtype == dtype else f"{dtype} in, {out.dtype}",
                        nside,
                        # A time of a wrong answer is not printed.
                        bench.spread(timed) if good else "wrong",
                        f"{rate:.3g}" if good else "-",
                        f"{rate / speed['sum']:.0%}" if good else "-",
                        f"{TARGET[name]:.0%}",
                        f"{off:.0e}",
                        bench.seconds(timed.compilation),
                    ]
                )
                del blocks, run
    device = jax.devices()[0]
    bench.publish(
        args,
        "6_gpu_kernels",
        f"6. The passes on one device ({device.device_kind})",
        f"Measured bandwidth: sum {speed['sum']:.4g} GB/s, copy {speed['copy']:.4g} "
        "GB/s. 15 bands, QU, three global parameters.\n",
        bench.table(
            [
                "pass",
                "noise",
                "type",
                "nside",
                "time, median (range)",
                "GB/s",
                "of the sum's",
                "target",
                "off",
                "compilation, once",
            ],
            rows,
        ),
    )


if __name__ == "__main__":
    main()
