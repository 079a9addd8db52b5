"""From tables to the model: emission laws and instruments, or what is wrong with them.

The only part of the configuration that knows how components and instruments are made.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distsep.config.errors import Place, closest, nearest
from distsep.model import laws
from distsep.model.components import Component
from distsep.model.instrument import Instrument, instrument, presets

if TYPE_CHECKING:
    from distsep.config.tables import InstrumentTable, LawTable

Problems = list[tuple[Place, str]]


def kinds() -> dict[str, Callable[..., Component]]:
    """The predefined laws by name."""
    return {name: getattr(laws, name) for name in laws.__all__ if name[0].isupper()}


def default_name(kind: str | None) -> str:
    """What a component of a kind is called when it is not named."""
    known = inspect.signature(kinds()[kind]).parameters if kind in kinds() else {}
    return known["name"].default if "name" in known else kind or ""


def build_law(
    table: "LawTable", *, fix_numbers: bool = True
) -> tuple[Component | None, Problems]:
    """Make the component of a table.

    Args:
        table: A [[component]].
        fix_numbers: Whether `temp = 20.0` fixes a parameter; if not, the parameter
            stays free and its number is for the caller to read.

    Returns:
        The component, or None, and what is wrong: keys inside the table, words.
    """
    if (table.kind is None) == (table.expression is None):
        return None, [((), "give `kind` or `expression`, one of the two")]
    if table.kind is not None:
        if table.kind not in kinds():
            words = f"got {table.kind!r}; {nearest(table.kind, kinds())}"
            return None, [(("kind",), words), *_keys_of_closest(table)]
        make, base, problems = _of_kind(table)
    else:
        make, base, problems = _of_expression(table)
    if not problems:
        try:
            law = make(**base)
            return _with_keys(table, make, base, law, fix_numbers)
        except (ValueError, TypeError) as error:
            key = "kind" if table.expression is None else "expression"
            if table.nu0 is not None and _try(make, {**base, "nu0": 100.0}):
                key = "nu0"
            problems = [((key,), str(error))]
    return None, problems + _wrong_keys(table, make, base, fix_numbers)


def _of_kind(table: "LawTable") -> tuple[Callable, dict[str, Any], Problems]:
    """The maker of a predefined law, its arguments, and what is wrong with them."""
    make = kinds()[str(table.kind)]
    known = inspect.signature(make).parameters
    base: dict[str, Any] = {"name": table.label}
    problems: Problems = []
    needed = [
        name
        for name, p in known.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if table.nu0 is not None and "nu0" not in known:
        problems.append((("nu0",), f"{table.kind} has no reference frequency"))
    elif table.nu0 is not None:
        base["nu0"] = table.nu0
    for name in needed:
        if name in table.options:
            try:
                base[name] = _option(name, table.options[name])
            except (OSError, ValueError) as error:
                problems.append(((name,), f"a file of two columns: {error}"))
        elif name not in base:
            problems.append(((name,), f"is required for {table.kind}"))
    if table.unit is not None:
        open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
        if "units" not in known and not open_ended:
            problems.append((("unit",), f"{table.kind} has its own unit"))
        base["units"] = table.unit
    return make, base, problems


def _of_expression(table: "LawTable") -> tuple[Callable, dict[str, Any], Problems]:
    """The same for a law given as a formula."""
    problems: Problems = []
    if table.name is None:
        problems.append((("name",), "is required with `expression`"))
    base = {"name": table.name, "unit": table.unit, "nu0": table.nu0}
    base = {key: value for key, value in base.items() if value is not None}

    def make(**arguments: Any) -> Component:
        return Component(str(table.expression), **arguments)

    return make, base, problems


def _keys_of_closest(table: "LawTable") -> Problems:
    """The misspelt keys of a table whose kind is misspelt."""
    kind = closest(str(table.kind), kinds())
    if kind is None:
        return []
    _, problems = build_law(table.model_copy(update={"kind": kind}), fix_numbers=False)
    return [p for p in problems if p[1].startswith("unknown key; did you mean")]


def _wrong_keys(
    table: "LawTable", make: Callable, base: dict, fix_numbers: bool
) -> Problems:
    """The wrong keys of a table that is wrong already, if they can be told.

    Its law is made with a reference frequency and a unit that are right.
    """
    base = {key: base[key] for key in base if key not in ("units", "unit")}
    for stand_in in (base, {**base, "nu0": 100.0}):
        law = _try(make, stand_in)
        if law is not None:
            return _with_keys(table, make, stand_in, law, fix_numbers)[1]
    return []


def _with_keys(
    table: "LawTable", make: Callable, base: dict, law: Component, fix_numbers: bool
) -> tuple[Component | None, Problems]:
    """Give the law its remaining keys: parameters to free, to fix, and options."""
    problems: Problems = []
    arguments = dict(base)
    for name in getattr(table, "parameters", {}):
        if name not in law.parameters:
            freed = _try(make, {**arguments, name: None})
            if freed is None or name not in freed.parameters:
                problems.append(((name,), _unknown(name, table, law)))
            else:
                arguments[name] = None
    left = {k: v for k, v in table.options.items() if k not in base}
    if fix_numbers:
        left.pop("moments", None)  # see `expand`
    for name, value in left.items():
        is_free = name in law.parameters
        if is_free and type(value) not in (int, float):
            problems.append(((name,), f"expected a number or a table, got {value!r}"))
        elif fix_numbers or not is_free:
            given = float(value) if is_free else _option(name, value)
            if (lo_hi := law.bounds.get(name)) and not lo_hi[0] <= given <= lo_hi[1]:
                words = f"{given:g} is outside its bounds [{lo_hi[0]:g}, {lo_hi[1]:g}]"
                problems.append(((name,), words))
            elif _try(make, {**arguments, name: given}) is None:
                problems.append(((name,), _unknown(name, table, law)))
            else:
                arguments[name] = given
    return (law if arguments == base else _try(make, arguments)), problems


def expand(table: "LawTable", law: Component) -> tuple[Component, ...]:
    """The components of a table: one, or its moments if `moments` gives an order.

    Raises:
        ValueError: for an order that is not possible.
    """
    order = table.options.get("moments")
    if order is None:
        return (law,)
    if type(order) is not int:
        raise ValueError(f"expected a whole number, got {order!r}")
    tables = getattr(table, "parameters", {})
    pivot = {
        name: value
        for name, t in tables.items()
        if (value := t.fixed if t.start is None else t.start) is not None
    }
    return laws.moments(law, order, **pivot)


def _option(name: str, value: Any) -> Any:
    """The value of a key that is no parameter; `table` is a file of two columns."""
    if name == "table" and isinstance(value, str):
        return tuple(np.loadtxt(Path(value).expanduser(), usecols=(0, 1), unpack=True))
    return value


def _try(make: Callable, arguments: dict) -> Component | None:
    try:
        return make(**arguments)
    except (ValueError, TypeError, OSError):
        return None


def _unknown(name: str, table: "LawTable", law: Component) -> str:
    valid = {"name", "unit", "nu0", *law.parameters}
    if table.kind is not None:
        known = inspect.signature(kinds()[table.kind]).parameters
        valid |= set(known) - {"units", "options", "keywords"}
    return f"unknown key; {nearest(name, sorted(valid))}"


def build_instrument(table: "InstrumentTable") -> Instrument:
    """Make the instrument of a table: a preset, perhaps some bands of it, or its own.

    Raises:
        ValueError: with everything that is wrong.
    """
    if table.preset is not None:
        if table.preset not in presets():
            got = f"unknown instrument {table.preset!r}"
            raise ValueError(f"{got}; {nearest(table.preset, presets())}")
        whole = instrument(table.preset)
        chosen = whole if table.bands is None else whole.select(table.bands)
        return _with_changes(chosen, table)
    return Instrument(
        nu=table.nu,
        depth_p=table.depth_p,
        depth_i=table.depth_i,
        fwhm=table.fwhm,
        bands=table.bands,
        bandpass=_bandpasses(table),
        response=_response(table),
        name=table.name,
    )


def _with_changes(chosen: Instrument, table: "InstrumentTable") -> Instrument:
    """A preset with the depths, beams or bandpasses that the table gives."""
    values = chosen.to_dict()
    for key in ("depth_i", "depth_p", "fwhm", "name"):
        if getattr(table, key) is not None:
            values[key] = getattr(table, key)
    if table.bandpass is not None:
        values |= {"bandpass": _bandpasses(table), "response": _response(table)}
    return Instrument.from_dict(values)


def _response(table: "InstrumentTable") -> str | list[str]:
    return table.response[0] if len(table.response) == 1 else list(table.response)


def _bandpasses(table: "InstrumentTable") -> list | None:
    """Read (GHz, transmission) columns; "" is a single frequency."""
    if table.bandpass is None:
        return None
    read = lambda file: tuple(np.loadtxt(file, usecols=(0, 1), unpack=True))
    return [read(Path(file).expanduser()) if file else None for file in table.bandpass]
