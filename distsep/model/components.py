"""Component: an emission law as a sympy expression, compiled to jax with derivatives.

A law is the brightness at frequency nu [GHz] of one unit of amplitude. It is written in
one unit (`unit`); the amplitude is the brightness at `nu0`, in `amplitude_unit`.
The predefined laws are in `laws.py`, spectral lines in `lines.py`.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from distsep.model import units
from distsep.model.formula import Formula, compile_formula, parse
from distsep.model.law import Law, pair
from distsep.model.mistakes import (
    Real,
    fixed_mistakes,
    is_number,
    number_mistakes,
    start_mistakes,
    word_mistakes,
)
from distsep.model.quadrature import Quadrature
from distsep.model.syntax import FormulaError, short
from distsep.model.tables import TableData

_NOT_ONE = 1e-6  # from 1 at nu0


class Component:
    """An emission law with named parameters.

    Every name in the formula that is neither `nu`, `nu0` (when given), a constant
    (`h_over_k` [K/GHz], `T_CMB` [K]) nor fixed is a free parameter.

    Args:
        expression: Formula in `nu` [GHz], numbers and names; see `formula.py`.
        name: Name of the component, the first half of `Name.parameter`.
        unit: Unit of brightness in which the formula is written.
        nu0: Reference frequency [GHz], where the formula is 1; the value of `nu0` in
            the formula. None: the amplitude is in units of the formula.
        amplitude_unit: Unit of the amplitude. By default K_CMB (at `nu0`), or `unit`
            where no `nu0` is given: the formula is then taken as it is.
        fixed: Values of parameters that are not fitted. Other keywords do the same:
            a number fixes a parameter, None leaves it free.
        defaults: Starting values of free parameters, 1 where none is given.
        bounds: (lower, upper) of free parameters, unbounded where none is given.
        table: (nu, value), the function `table(x)` of the formula.

    Raises:
        ValueError: for a formula that is refused, or is not 1 at `nu0`; or for an
            unknown unit, a value for a name that the formula does not hold, a start or
            a fixed value outside its bounds: all of them at once.

    Examples:
        >>> law = Component("(nu/nu0)**beta", name="PowerLaw", unit="K_RJ", nu0=23.0)
        >>> law.parameters
        ('beta',)
        >>> float(law.sed(23.0, beta=-3.0).round(12))
        1.0
    """

    def __init__(
        self,
        expression: Any,
        *,
        name: str = "Component",
        unit: str = "K_RJ",
        nu0: Real | None = None,
        amplitude_unit: str | None = None,
        fixed: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        bounds: Mapping[str, Any] | None = None,
        table: Any = None,
        **keywords: Any,
    ) -> None:
        self.name = name
        self.unit = unit
        self.nu0 = nu0
        self.amplitude_unit = amplitude_unit or ("K_CMB" if nu0 is not None else unit)
        if table is not None and not isinstance(table, TableData):
            table = TableData.of(*table)
        self.table: TableData | None = table
        self.text = expression if isinstance(expression, str) else None
        self.formula = _parse(expression, name, table is not None)
        given = {**(fixed or {}), **keywords}
        if nu0 is not None:
            given["nu0"] = nu0
        defaults, bounds = defaults or {}, bounds or {}
        mistakes = [
            *self._unit_mistakes(),
            *_name_mistakes(self.formula, {**given, **defaults, **bounds}, nu0),
            *_missing_nu0(self.formula, {**given, **defaults, **bounds}),
            *number_mistakes({**given, **defaults}),
        ]
        if not mistakes:
            values = {key: float(v) for key, v in given.items() if v is not None}
            names = self.formula.names
            self.parameters = tuple(n for n in names if n not in values)
            self.fixed = {n: values[n] for n in names if n in values}
            self.defaults = {n: float(defaults.get(n, 1)) for n in self.parameters}
            self.unstarted = tuple(n for n in self.parameters if n not in defaults)
            self.bounds = {n: pair(bounds.get(n)) for n in self.parameters}
            limits = {n: pair(bounds.get(n)) for n in self.fixed}
            mistakes = start_mistakes(self.defaults, self.bounds)
            mistakes += fixed_mistakes(self.fixed, limits)
        if not mistakes and self.text is not None and nu0 is not None:
            mistakes = self._nu0_mistakes(float(nu0))
        if mistakes:
            raise ValueError(f"`Component(name={name!r})`: {'; '.join(mistakes)}.")

    def _unit_mistakes(self) -> list[str]:
        mistakes = word_mistakes("name", self.name)
        if self.nu0 is not None and not (is_number(self.nu0) and self.nu0 > 0):
            mistakes.append(f"`nu0` should be a positive frequency; got {self.nu0!r}")
        elif self.nu0 is not None and self.nu0 > units.LARGEST_NU:
            mistakes.append(
                f"`nu0` should be in GHz; got {self.nu0:g}: if that is in Hz, divide "
                "it by 1e9"
            )
        amplitudes = (*units.MAP_UNITS, units.COMPTON_UNIT)
        for argument, allowed in (
            ("unit", units.MAP_UNITS),
            ("amplitude_unit", amplitudes),
        ):
            value = getattr(self, argument)
            if value not in allowed:
                mistakes.append(
                    f"`{argument}` should be one of {', '.join(allowed)}; got {value!r}"
                )
        return mistakes

    def _nu0_mistakes(self, nu0: float) -> list[str]:
        """A law that is not 1 at nu0: its amplitude is not the brightness there."""
        values = {**self.fixed, **self.defaults}
        at_nu0 = float(self.formula.values(np.array([nu0]), values, self.table)[0])
        if abs(at_nu0 - 1) <= _NOT_ONE or (self.parameters and np.isnan(at_nu0)):
            return []
        at = "".join(f", {n}={x:g}" for n, x in self.defaults.items())
        return [
            f"the formula {short(str(self.text))} should be 1 at `nu0`; at {nu0:g} GHz"
            f"{at} it is {at_nu0:g}: divide it by its value there, or leave out `nu0` "
            "(the amplitude is then in units of the formula)"
        ]

    @property
    def _content(self) -> tuple[Any, ...]:
        return (
            self.name,
            self.formula,
            self.unit,
            self.nu0,
            self.amplitude_unit,
            self.table,
            *(tuple(d.items()) for d in (self.fixed, self.defaults, self.bounds)),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Component) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def __repr__(self) -> str:
        free, fixed = ", ".join(self.parameters), self.fixed
        return f"Component({self.name!r}, parameters=({free}), fixed={fixed})"

    @property
    def scale(self) -> float:
        """`unit` per `amplitude_unit` at `nu0`."""
        if self.nu0 is None:
            return 1.0
        return float(units.conversion(self.amplitude_unit, self.unit, self.nu0))

    def law(
        self,
        nu: Any,
        parameters: Mapping[str, Any],
        order: int = 2,
    ) -> Law:
        """The formula and its derivatives, as written: in `unit`, unscaled.

        Args:
            nu: Frequencies [GHz].
            parameters: Values of the free parameters, of shapes that broadcast against
                `nu`.
            order: Highest order of the derivatives.

        Returns:
            Everything in the shape of `nu` and the parameters together.
        """
        values = {**self.fixed, **parameters}
        arguments = [values[n] for n in self.formula.names]
        constants = [value for _, value in self.formula.constants]
        compiled = compile_formula(self.formula, self.parameters, self.table, order)
        outputs = compiled.function(nu, *arguments, *constants)
        shape = jnp.broadcast_shapes(
            jnp.shape(nu), *(jnp.shape(parameters[n]) for n in self.parameters)
        )
        arrays = [jnp.broadcast_to(jnp.asarray(x, dtype=float), shape) for x in outputs]
        k = 1 + len(compiled.first)
        return Law(
            arrays[0],
            dict(zip(compiled.first, arrays[1:k], strict=True)),
            dict(zip(compiled.second, arrays[k:], strict=True)),
        )

    def band_law(
        self,
        quadrature: Quadrature,
        parameters: Mapping[str, Any],
        shift: Any = None,
        order: int = 2,
    ) -> Law:
        """The law integrated over the bands of an instrument.

        Args:
            quadrature: Samples of the bands, and the unit of the maps.
            parameters: Values of the free parameters, numbers.
            shift: Shift of every band [GHz], (freq,), or None.
            order: Highest order of the derivatives.

        Returns:
            Map unit per amplitude unit, everything (freq,).
        """
        weights = self.scale * quadrature.weights(self.unit, shift)
        law = self.law(quadrature.shifted(shift), parameters, order)
        if weights.shape[1] == 1:
            return law.map(lambda x: weights[:, 0] * x[:, 0])
        # As a product: a sum takes two times as long for many sets of parameters.
        return law.map(lambda x: jnp.einsum("fn,fn->f", weights, x))

    def band_values(
        self, quadrature: Quadrature, parameters: Mapping[str, float]
    ) -> np.ndarray:
        """The value of `band_law` in numpy, which compiles nothing, (freq,)."""
        values = {**self.fixed, **parameters}
        law = self.formula.values(quadrature.nu, values, self.table)
        with np.errstate(all="ignore"):
            weights = self.scale * np.asarray(quadrature.weights(self.unit))
            return (weights * law).sum(axis=-1)

    def band_mistakes(self, quadrature: Quadrature) -> list[str]:
        """Bands that a tabulated law does not reach, at the starting values."""
        if self.table is None:
            return []
        values = {**self.fixed, **self.defaults}
        lowest, highest = self.table.nu[0], self.table.nu[-1]
        mistakes = []
        for edges in quadrature.edges():
            reach = [x for nu in edges for x in self.formula.table_reach(values, nu)]
            if reach and (min(reach) < lowest or max(reach) > highest):
                mistakes.append(
                    f"the table of `{self.name}` covers {lowest:g} .. {highest:g} GHz; "
                    f"the band at {edges[0]:g} .. {edges[1]:g} GHz asks for "
                    f"{min(reach):g} .. {max(reach):g}"
                )
        return mistakes

    def _sed(
        self,
        nu: Any,
        unit: str,
        parameters: Mapping[str, Any],
        order: int = 2,
    ) -> Law:
        unknown = set(parameters) - set(self.parameters)
        if unknown:
            raise ValueError(
                f"`{self.name}.sed(...)` has the free parameters "
                f"{', '.join(self.parameters) or 'none'}; got {', '.join(unknown)}."
            )
        nu = jnp.asarray(nu, dtype=float)
        given = {**self.defaults, **parameters}
        values = {n: jnp.asarray(p, dtype=float) for n, p in given.items()}
        lead = jnp.broadcast_shapes(*(p.shape for p in values.values()))
        # Equal ranks, said explicitly: parameters (..., 1) against nu (1, ..., freq).
        values = {
            n: jnp.broadcast_to(p, lead).reshape(*lead, *(1,) * nu.ndim)
            for n, p in values.items()
        }
        nu = nu.reshape(*(1,) * len(lead), *nu.shape)
        factor = self.scale * units.conversion(self.unit, unit, nu, jnp)
        return self.law(nu, values, order).map(lambda x: factor * x)

    def sed(self, nu: Any, unit: str = "K_CMB", /, **parameters: Any) -> Array:
        """The emission law at single frequencies.

        Args:
            nu: Frequency [GHz], a number or (freq,).
            unit: Unit of the brightness.
            parameters: Free parameters, numbers or arrays (...); the default value
                where one is left out.

        Returns:
            Brightness per unit amplitude, (..., freq).
        """
        return self._sed(nu, unit, parameters, order=0).value

    def derivative(
        self, nu: Any, unit: str = "K_CMB", /, **parameters: Any
    ) -> dict[str, Array]:
        """Derivatives of `sed` with respect to each free parameter."""
        law = self._sed(nu, unit, parameters, order=1)
        zero = jnp.zeros_like(law.value)
        return {n: law.first.get(n, zero) for n in self.parameters}

    def second_derivative(
        self, nu: Any, unit: str = "K_CMB", /, **parameters: Any
    ) -> dict[tuple[str, str], Array]:
        """Second derivatives of `sed`, for every ordered pair of free parameters."""
        law = self._sed(nu, unit, parameters)
        both = law.second | {(b, a): x for (a, b), x in law.second.items()}
        zero = jnp.zeros_like(law.value)
        pairs = [(a, b) for a in self.parameters for b in self.parameters]
        return {pair: both.get(pair, zero) for pair in pairs}


def _parse(expression: Any, name: str, table: bool) -> Formula:
    """A formula; if it is refused, say whose it is."""
    if isinstance(expression, Formula):
        return expression
    if not isinstance(expression, str):
        kind = type(expression).__name__
        raise FormulaError(
            f"`Component(name={name!r})`: a formula is a string, '(nu/100)**beta'; got "
            f"{kind}."
        )
    try:
        return parse(expression, table=table)
    except FormulaError as error:
        raise FormulaError(f"`Component(name={name!r})`: {error}") from None


def _missing_nu0(formula: Formula, given: Mapping[str, Any]) -> list[str]:
    if "nu0" not in formula.names or "nu0" in given:
        return []
    return ["the formula holds `nu0`: give `nu0=`, the reference frequency [GHz]"]


def _name_mistakes(
    formula: Formula, given: Mapping[str, Any], nu0: Real | None
) -> list[str]:
    known = set(formula.names) | ({"nu0"} if nu0 is not None else set())
    listed = ", ".join(formula.names) or "no parameter"
    return [
        f"`{key}` is not in the formula, which holds {listed}"
        for key in given
        if key not in known
    ]
