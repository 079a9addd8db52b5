"""The flags that commands share, and what of them the help shows."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

BANDPASS = "Files of (GHz, transmission), one for each map; single frequencies else."
RESPONSE = "What they multiply: intensity, RJ, weights; of all, or of each map."
PRESETS = "LiteBIRD, Planck, SO-SAT, SO-LAT, CMB-S4, PICO, WMAP"
UNITS = "K_CMB, mK_CMB, uK_CMB, K_RJ, mK_RJ, uK_RJ, MJy/sr, kJy/sr, Jy/sr"


class _PlainFlags:
    """Commands whose help shows a flag without the type of its value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments, those that take no value marked so."""
        params = super().get_params(ctx)  # pyright: ignore
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(_PlainFlags, TyperCommand):
    """A command."""


class Group(_PlainFlags, TyperGroup):
    """The commands together."""


def output(default: str) -> Any:
    """The option `--output`, with the words for its default."""
    words = f"Where to write. [default: {default}]"
    return typer.Option("--output", "-o", help=words, show_default=False)


Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is already there.")
]


def _set(words: str) -> Any:
    """The option `--set`, with the words of its help."""
    return typer.Option("--set", metavar="KEY=VALUE", help=words, show_default=False)


Set = Annotated[
    list[str] | None,
    _set(
        "Change a key of the file, e.g. fit.tolerance=1e-4 or component.Dust.nu0=353. "
        "May be repeated."
    ),
]
SetAny = Annotated[
    list[str] | None,
    _set(
        "Change a key of the file, e.g. campaign.skies=10, or of its sky and run, e.g. "
        "sky.sky.nside=16 or run.fit.solver=newton. May be repeated."
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Say only warnings, errors, and the table that was asked for.",
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        help="Keep all that is said, also with --quiet.",
        show_default=False,
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(
        "--devices",
        min=1,
        help="Devices to make of the processor of each rank (or DISTSEP_DEVICES).",
        show_default=False,
    ),
]
