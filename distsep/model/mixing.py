"""MixingMatrix: A(beta) and its derivatives, for all patches at once, as one function.

Columns are the emission laws over the bands; rows are then multiplied by what belongs
to the instrument: a calibration per band and, where there are polarisation angles, a
rotation of Q and U.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distsep.model import units
from distsep.model.columns import Columns, columns, shifted_columns
from distsep.model.entries import Entries
from distsep.model.free import band_names, free_parameters
from distsep.model.instrument import Instrument
from distsep.model.mistakes import InputError, unknown_names
from distsep.model.rows import multiply_rows, row_factors, times
from distsep.model.trial import is_long, nodes_for, nodes_off, trial_mistakes

STOKES = ("I", "QU", "IQU")
_BATCH = 65_536  # samples of bandpasses times pools at once: they stay in cache

BetaLike = Mapping[str, Any]


class MixingMatrix:
    r"""The mixing matrix A(beta), of $d = A(\beta) s + n$.

    Args:
        components: Emission laws, one column each.
        instrument: Instrument, the name of a preset, or an object with `frequency`.
        stokes: "I", "QU" or "IQU": the Stokes parameters of a joint row.
        fixed: Values of parameters ("Dust.temp") that are not fitted.
        shared: Parameters that are one: {"Name.parameter": ["A.x", "B.y"]}. The name
            is free, "A.x" itself included; start and bounds are those of the first.
        calibration: Names of bands with a gain g: A -> diag(g) A.
        band_shift: Names of bands whose bandpass is shifted [GHz].
        angle: Names of bands with a polarisation angle [rad]: the row is then the joint
            (freq, stokes) vector, Q' = Q cos 2 psi - U sin 2 psi,
            U' = Q sin 2 psi + U cos 2 psi (COSMO), and columns are (comp, stokes).
        unit: Unit of the maps.

    Attributes:
        names: The K free parameters: "Dust.beta_d", ... in order of components and
            formulas, then "calibration.BAND", "band_shift.BAND", "angle.BAND".
        component_names: Names of the columns.
        amplitude_units: Units of the amplitudes where maps are in uK_CMB.
        defaults: Starting values by name.
        bounds: (lower, upper) by name.
        joint: Whether rows are (freq, stokes).

    Raises:
        InputError: a ValueError that lists everything that is wrong.

    Examples:
        >>> from distsep.model.laws import CMB, Dust
        >>> A = MixingMatrix([CMB(), Dust(150.0, temp=20.0)], "LiteBIRD")
        >>> A.names, A({"Dust.beta_d": 1.54}).shape
        (('Dust.beta_d',), (15, 2))
    """

    def __init__(
        self,
        components: Any,
        instrument: Any,
        *,
        stokes: str = "QU",
        fixed: Any = None,
        shared: Any = None,
        calibration: Sequence[str | int] | None = None,
        band_shift: Sequence[str | int] | None = None,
        angle: Sequence[str | int] | None = None,
        unit: str = "K_CMB",
    ) -> None:
        self.instrument = Instrument.of(instrument)
        self._per_band = {
            "calibration": band_names(calibration),
            "band_shift": band_names(band_shift),
            "angle": band_names(angle),
        }
        free = free_parameters(
            components, self.instrument, fixed, shared, self._per_band
        )
        self.components = free.components
        self.stokes = stokes
        self.unit = units.check_unit(unit, "unit")
        self.component_names = tuple(c.name for c in self.components)
        self.amplitude_units = tuple(
            units.micro(c.amplitude_unit) for c in self.components
        )
        self._quadrature = self.instrument.quadrature(unit)
        self.joint = bool(self._per_band["angle"])
        self.names, self.defaults, self.bounds = free.names, free.defaults, free.bounds
        self._sources = free.sources
        mistakes = [*self._structure_mistakes(), *free.mistakes]
        # What the laws are at values that are wrong would only mislead.
        if not mistakes:
            laws = self.components, self._sources
            finer = partial(self.instrument.quadrature, unit)
            start = list(self.defaults.values())
            self._quadrature = nodes_for(*laws, self._quadrature, finer, start)
            mistakes = trial_mistakes(
                *laws, self._quadrature, self.defaults, self.bounds
            )
        if mistakes:
            raise InputError("MixingMatrix(...)", *mistakes)

    @property
    def unstarted(self) -> tuple[str, ...]:
        """Names of the parameters whose start nobody has given."""
        first: dict[str, bool] = {}  # of those that laws share, that of the first
        for component, source in zip(self.components, self._sources, strict=True):
            none = getattr(component, "unstarted", ())
            for name, place in source.items():
                if isinstance(place, int):
                    first.setdefault(self.names[place], name in none)
        return tuple(name for name, none in first.items() if none)

    @cached_property
    def _content(self) -> tuple[Any, ...]:
        """What A(beta) is made of: equal matrices share their compiled programs."""
        return (
            self.components,
            json.dumps(self.instrument.to_dict(), default=repr, sort_keys=True),
            self.stokes,
            self.unit,
            self.names,
            tuple(self._per_band.items()),
            tuple(tuple(sources.items()) for sources in self._sources),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MixingMatrix) and self._content == other._content

    @cached_property
    def _hash(self) -> int:
        return hash(self._content)

    def __hash__(self) -> int:
        return self._hash

    def _structure_mistakes(self) -> list[str]:
        mistakes = []
        if not self.components:
            mistakes.append("`components` is empty")
        for name in sorted({n for n in self.component_names}):
            count = self.component_names.count(name)
            if count > 1:
                mistakes.append(
                    f"{count} components are called {name!r}: give each its own `name=`"
                )
        if self.stokes not in STOKES:
            mistakes.append(
                f"`stokes` should be one of {', '.join(STOKES)}; got {self.stokes!r}"
            )
        elif self.joint and self.stokes == "I":
            mistakes.append("`angle` needs polarisation; `stokes` is 'I'")
        for component in self.components:
            mistakes += component.band_mistakes(self._quadrature)
        return mistakes

    def bandpass_error(self, values: Sequence[float]) -> float:
        """Largest relative error of A by the nodes that stand for long bandpasses.

        Args:
            values: Of the free parameters, in their order.

        Communication: none.
        """
        if not is_long(self._quadrature):
            return 0.0
        whole = self.instrument.quadrature(self.unit, fineness=None)
        laws = self.components, self._sources
        return nodes_off(*laws, self._quadrature, whole, values)

    # ------------------------------------------------------------- one pool

    def _places(self, kind: str) -> tuple[list[int], list[int]]:
        """Places of the parameters of a kind, and of their bands."""
        bands = self._per_band[kind]
        places = [self.names.index(f"{kind}.{band}") for band in bands]
        return places, [self.instrument.index(band) for band in bands]

    def _columns(self, values: Array, order: int = 2) -> Columns:
        arguments = (self.components, self._sources, self._quadrature, values)
        places, rows = self._places("band_shift")
        if not places:
            return columns(*arguments, order=order)
        return shifted_columns(*arguments, places, rows, order)

    def _rows(self, values: Array) -> Array:
        gains, angles = self._places("calibration"), self._places("angle")
        stokes = self.stokes if self.joint else None
        return row_factors(values, len(self.instrument.nu), gains, angles, stokes)

    def _pool(self, values: Array) -> tuple[Array, Entries, Entries]:
        """A, dA, d2A for one set of parameters (K,)."""
        A, dA, d2A = self._columns(values).entries(len(self.names))
        if not (self._per_band["calibration"] or self.joint):
            return A, dA, d2A
        first, second = dA.dense(1), d2A.dense(2)
        A, first, second = multiply_rows(self._rows, values, A, first, second)
        return A, Entries.full(first), Entries.full(second)

    def _pool_value(self, values: Array) -> Array:
        """A for one set of parameters (K,)."""
        A = self._columns(values, order=0).value
        if not (self._per_band["calibration"] or self.joint):
            return A
        return times(self._rows(values), A)

    # ------------------------------------------------------------ all pools

    def value(self, values: Any) -> Array:
        """A alone, as the first result of `evaluate`, without the cost of the rest."""
        return self._over_pools(self._pool_value, values)

    def evaluate(self, values: Any) -> tuple[Array, Entries, Entries]:
        """A and its derivatives for many sets of parameters: pure, to be jitted.

        Args:
            values: The free parameters in the order of `names`, (pool, K).

        Returns:
            A (pool, R, C), where R is freq and C comp, or freq * stokes and comp *
            stokes when `joint` (the Stokes parameter runs fastest); the first and the
            second derivatives, values (pool, entry, R).

        Communication: none.
        """
        return self._over_pools(self._pool, values)

    def _over_pools(self, function: Any, values: Any) -> Any:
        values, many = jnp.asarray(values, dtype=float), jax.vmap(function)
        npool, (nband, nsample) = len(values), self._quadrature.nu.shape
        count = -(-npool * nband * nsample // _BATCH) if nsample > 1 else 1
        if count <= 1:
            return many(values)
        size = -(-npool // count)
        padded = jnp.pad(values, ((0, count * size - npool), (0, 0)), mode="edge")
        out = jax.lax.map(many, padded.reshape(count, size, -1))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:npool], out)

    def values(self, beta: BetaLike) -> Array:
        """Parameters by name as one array, in the order of `names`.

        Args:
            beta: Every name of `names` -> a number, or (npatch,).

        Returns:
            (K,), or (npatch, K) where any is an array.

        Raises:
            ValueError: for names that miss or are unknown, or unequal numbers of
                patches.
        """
        mistakes = unknown_names("beta", beta, self.names)
        missing = [name for name in self.names if name not in beta]
        if missing:
            mistakes.append(f"`beta` lacks {', '.join(missing)}")
        shapes = {name: np.shape(x) for name, x in beta.items()}
        sizes = {shape for shape in shapes.values() if shape}
        if len(sizes) > 1 or any(len(shape) > 1 for shape in sizes):
            mistakes.append(
                "values should be numbers or arrays of one length (npatch,); got "
                + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            )
        if mistakes:
            raise InputError("MixingMatrix", *mistakes)
        arrays = [jnp.asarray(beta[name], dtype=float) for name in self.names]
        shape = sizes.pop() if sizes else ()
        if not arrays:
            return jnp.zeros((*shape, 0))
        return jnp.stack([jnp.broadcast_to(x, shape) for x in arrays], axis=-1)

    def __call__(self, beta: BetaLike) -> Array:
        """A(beta): (freq, comp), or (npatch, freq, comp)."""
        return self._batched(_value, beta)

    def derivative(self, beta: BetaLike) -> dict[str, Array]:
        """dA/d beta by name, each in the shape of A(beta)."""
        dA = self._batched(_first, beta)
        return {name: dA[..., k, :, :] for k, name in enumerate(self.names)}

    def second_derivative(self, beta: BetaLike) -> dict[tuple[str, str], Array]:
        """Second derivatives by pairs of names, each in the shape of A(beta)."""
        d2A = self._batched(_second, beta)
        return {
            (a, b): d2A[..., k, m, :, :]
            for k, a in enumerate(self.names)
            for m, b in enumerate(self.names)
        }

    def _batched(self, function: Any, beta: BetaLike) -> Array:
        values = self.values(beta)
        if values.ndim == 2:
            return function(self, values)
        return function(self, values[None])[0]


# Compiled once for all matrices that are equal.
@partial(jax.jit, static_argnums=0)
def _value(mixing: MixingMatrix, values: Array) -> Array:
    return mixing.value(values)


@partial(jax.jit, static_argnums=0)
def _first(mixing: MixingMatrix, values: Array) -> Array:
    return mixing.evaluate(values)[1].dense(1)


@partial(jax.jit, static_argnums=0)
def _second(mixing: MixingMatrix, values: Array) -> Array:
    return mixing.evaluate(values)[2].dense(2)
