"""The unit names met in FITS headers, and what they mean here.

A header that says "uK" is not enough: thermodynamic and antenna temperature differ by
a factor 1.7 at 143 GHz and 13 at 353 GHz. Such a name is refused, never guessed.
"""

import re

from distsep.model.units import MAP_UNITS, check_unit

_PREFIX = {"": "", "m": "m", "milli": "m", "u": "u", "mu": "u", "micro": "u"}
_KIND = {
    "cmb": "CMB",
    "thermo": "CMB",
    "thermodynamic": "CMB",
    "rj": "RJ",
    "ant": "RJ",
    "antenna": "RJ",
    "rayleighjeans": "RJ",
}
_KELVIN = re.compile(r"(|m|milli|u|mu|micro)(?:[Kk]elvin|K)(.*)")
_JANSKY = re.compile(
    r"(M|k|)[Jj]y(?:/(?:[Ss]r|steradian)|(?:[Ss]r|steradian)(?:\^|\*\*)?-1)"
)
_SQUARE = re.compile(r"\(?(.+?)\)?(?:\^|\*\*)2")


def unit_of(text: str | None, given: str | None = None, where: str = "the map") -> str:
    """Return the unit of a map from what its header says and what the user says.

    Args:
        text: TUNITn of the header; None or empty if there is none.
        given: Unit stated by the user, one of ours. It completes a header that says
            nothing, or too little ("uK"); it cannot contradict one that is clear.
        where: File and column, for the message.

    Returns:
        One of our unit names, e.g. "uK_CMB" or "MJy/sr".

    Raises:
        ValueError: if the unit is absent, ambiguous or unknown and none is given, or
            if the one given contradicts the header.

    Examples:
        >>> unit_of("mK,thermodynamic")
        'mK_CMB'
        >>> unit_of("Kcmb"), unit_of("MJy sr-1"), unit_of("mK", given="mK_RJ")
        ('K_CMB', 'MJy/sr', 'mK_RJ')
    """
    clear, scale = _understand(text or "")
    if given is None:
        if clear is None:
            raise ValueError(f"{where}: {_complaint(text, scale)}")
        return clear
    check_unit(given, "unit")
    agrees = clear == given if clear else scale is None or given.startswith(scale + "_")
    if not agrees:
        raise ValueError(
            f"{where}: the header says TUNIT = {text!r} but the unit given is "
            f"{given!r}: leave `--unit` (`unit=`) out, or correct the header."
        )
    return given


def says_square(text: str | None, unit: str, where: str) -> bool:
    """Return whether a header says that a variance is in the square of a unit.

    Args:
        text: TUNITn of the variance; None, empty or "unknown": it says nothing.
        unit: Unit of the maps, one of ours.
        where: File and column, for the message.

    Raises:
        ValueError: if the header says anything else.

    Examples:
        >>> says_square("(Mjy/sr)^2", "MJy/sr", "the variance")
        True
    """
    plain = re.sub(r"\s", "", text or "")
    if plain.lower() in ("", "unknown"):
        return False
    if match := _SQUARE.fullmatch(plain):
        clear, scale = _understand(match[1])
        if clear == unit or (not clear and scale and unit.startswith(scale + "_")):
            return True
    raise ValueError(
        f"{where}: expected a variance in the unit of the maps, squared: "
        f"({unit})^2; the header says TUNIT = {text!r}. Convert the column, or correct "
        "the header."
    )


def _understand(text: str) -> tuple[str | None, str | None]:
    """Return our name of a unit, and its scale ("uK") if only that is known."""
    plain = re.sub(r"\s", "", text).replace("µ", "u").replace("μ", "u")
    if match := _JANSKY.fullmatch(re.sub(r"[.*](?=s)", "", plain)):
        return f"{match[1]}Jy/sr", None
    # Only "K" may be written small, and only where a kind follows: "uk_cmb".
    small = re.sub(r"^(|m|u)k(?=[_a-z])(?!elvin)", r"\1K", plain)
    if match := _KELVIN.fullmatch(small):
        scale = _PREFIX[match[1]] + "K"
        words = re.sub(r"(?<=.)(temperature|units?)", "", match[2].lower())
        word = re.sub(r"[^a-z0-9]", "", words)
        if word in _KIND:
            return f"{scale}_{_KIND[word]}", scale
        if not word:
            return None, scale
    return None, None


def _complaint(text: str | None, scale: str | None) -> str:
    """Say what is wrong with the unit of a header, and the remedy."""
    if scale:
        example = f"{scale}_CMB"
        fault = (
            f"its unit {text!r} does not say whether it is thermodynamic or antenna "
            "(Rayleigh-Jeans) temperature"
        )
    else:
        example = "mK_CMB"
        fault = f"its unit {text!r} is not known" if text else "no unit in its header"
    return (
        f"{fault}. State it with `--unit {example}` (Python: `unit={example!r}`), one "
        f"of {', '.join(MAP_UNITS)}."
    )
