"""Moment expansion: a law averaged over a distribution of its parameters."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

from distsep.model.components import Component


def moments(
    component: Component,
    order: int,
    parameters: Sequence[str] | None = None,
    **pivot: Any,
) -> tuple[Component, ...]:
    r"""Moment expansion of a component about fixed values of its parameters.

    The law and its Taylor terms,
    $\partial^n f / \prod_i n_i!\,\partial\beta_i^{n_i}$, each a component without free
    parameters, whose amplitude is the moment: the first over the sky-averaged law, the
    next in units of the amplitude times those of the parameters.

    Args:
        component: Any component with free parameters.
        order: Highest total power, 1 or more.
        parameters: In which to expand; all free ones by default.
        pivot: Values of the free parameters; the component's starts by default.

    Returns:
        Components named "Dust", "Dust_beta_d", "Dust_temp", "Dust_beta_d_beta_d", ...

    Raises:
        ValueError: for an order below 1 or a parameter that is not free.

    References:
        Chluba, Hill & Abitbol (2017), MNRAS 472, 1195.
    """
    chosen = component.parameters if parameters is None else tuple(parameters)
    unknown = (set(chosen) | set(pivot)) - set(component.parameters)
    if unknown or not chosen or order < 1:
        known = ", ".join(component.parameters) or "none, all fixed"
        raise ValueError(
            f"`moments({component.name}, order={order})` needs an order of 1 or "
            f"more and free parameters, here {known}; got "
            f"{', '.join([*chosen, *pivot])}."
        )
    values = {**component.fixed, **component.defaults, **pivot}
    result = []
    for n in range(order + 1):
        for names in combinations_with_replacement(chosen, n):
            formula = component.formula.taylor(Counter(names))
            result.append(
                Component(
                    formula,
                    name="_".join([component.name, *names]),
                    unit=component.unit,
                    nu0=component.nu0,
                    amplitude_unit=component.amplitude_unit,
                    fixed=values,
                    table=component.table,
                )
            )
    return tuple(result)
