"""The flags that commands share."""

from pathlib import Path
from typing import Annotated

import typer

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Where to write.", show_default=False),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is already there.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the file, e.g. fit.tolerance=1e-4 or "
        "component.Dust.nu0=353. May be repeated.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what matters.")]
LogFile = Annotated[
    Path | None,
    typer.Option("--log-file", help="Keep what is said.", show_default=False),
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
