"""A result as pictures and a page of text: what one looks at first.

report.png: a band, the recovered CMB, its error, chi2 in every pixel. parameters.png:
maps of the parameters that have patches. report.txt: the table. Large maps are averaged
to nside 128 before they are drawn; the numbers in titles are of the full maps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from healpy import vec2pix
from healpy.projector import MollweideProj
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from distsep.data.healpix import nside_of
from distsep.data.observation import Observation
from distsep.data.place import aside, require_folder
from distsep.data.result import Result
from distsep.data.result_store import pixel_maps
from distsep.data.stored_observation import StoredObservation
from distsep.inference.sampling import Samples
from distsep.panels import (
    Panel,
    in_words,
    parameter_panels,
    sky_panels,
)
from distsep.table import goodness, text_table

MASKED = "0.82"
_TICKS = 4
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11.5,
    "mathtext.fontset": "stixsans",
}


def report(
    result: Result,
    directory: str | Path,
    observation: Observation | StoredObservation | None = None,
    truth: Any = None,
) -> list[Path]:
    """Write the pictures and the table of a result.

    Args:
        result: A whole result, of one process.
        directory: Where to write; made if it is not there.
        observation: What was separated: for the picture of a band. If it is a stored
            simulation, its truth is used.
        truth: The same simulation, if `observation` is not the store itself.

    Returns:
        The files written: report.txt, report.png and, with patches, parameters.png.

    Raises:
        FileExistsError: a directory that is a store, or in one, or a file.
        PermissionError: where nothing can be written.
        ValueError: a result of one of several ranks, which has a part of the sky.

    Communication: none; one rank is enough.
    """
    directory = Path(directory)
    require_folder(directory)
    own, grid = result.cell_ids, result.grid
    if own is not None and grid is not None and len(own) < grid.npix:
        raise ValueError(
            f"`Result.report`: this rank has {len(own)} of the {grid.npix} pixels of "
            "the sky. Let all ranks write a store, `output=...` or `result.save(path, "
            "comm=...)`, and report that: `distsep.read(path).report(...)` on one."
        )
    directory.mkdir(parents=True, exist_ok=True)
    if truth is None and isinstance(observation, StoredObservation):
        truth = observation
    if truth is not None and truth.truth is None:
        truth = None
    files = [directory / "report.txt"]
    known = None if truth is None else truth.truth.parameters
    with aside(files[0]) as new:
        new.write_text(text_table(result, known))
    with mpl.rc_context(_STYLE):
        panels = sky_panels(result, observation, truth)
        files.append(directory / "report.png")
        _write(_figure(panels, _heading(result)), files[-1])
        panels = parameter_panels(result)
        (directory / "parameters.png").unlink(missing_ok=True)  # of another result
        if panels:
            heading = ("Parameters with patches", _origin(result))
            files.append(directory / "parameters.png")
            _write(_figure(panels, heading), files[-1])
    return files


def pull_plot(pulls: Mapping[str, np.ndarray], path: str | Path) -> Path:
    """Draw the pulls of many skies beside what they should be.

    Args:
        pulls: (fitted - truth) / sigma by name: a normal distribution of mean 0 and
            standard deviation 1 where the errors are right.
        path: File to write.

    Communication: none.
    """
    columns = 2 if len(pulls) in (2, 4) else min(len(pulls), 3)
    rows = -(-len(pulls) // columns)
    x = np.linspace(-5, 5, 201)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (name, own) in zip(grid.flat, pulls.items(), strict=False):
            bins = np.linspace(-5, 5, 1 + int(np.clip(2 * np.sqrt(len(own)), 10, 50)))
            axes.hist(np.clip(own, -5, 5), bins, density=True, color="0.75")
            axes.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color="C3")
            axes.set_title(name, weight="bold", loc="left")
            note = f"mean {own.mean():+.2f}"
            if len(own) > 1:
                note += f", spread {own.std(ddof=1):.2f}"
            if beyond := int((np.abs(own) > 5).sum()):
                note += f", {beyond} beyond 5"
            axes.set_title(note, loc="right", fontsize=9.5, color="0.3")
            axes.set(xlim=(-5, 5), yticks=[], xlabel=_pull_of(name))
        for axes in grid.flat[len(pulls) :]:
            axes.set_axis_off()
        _write(figure, Path(path))
    return Path(path)


def _pull_of(name: str) -> str:
    """Return what is drawn along the axis."""
    if name == "chi2":
        return r"$(\chi^2 - \mathrm{dof}) / \sqrt{2\,\mathrm{dof}}$"
    return r"(fitted $-$ truth) / $\sigma$"


def corner_plot(samples: Samples, path: str | Path, truth: Any = None) -> Path:
    """Draw the samples of every parameter, and of every pair.

    Args:
        samples: What `Result.sample` returned.
        path: File to write.
        truth: True values by name, drawn as lines.

    Communication: none.
    """
    n, truth = len(samples.names), truth or {}
    flat = samples.values.reshape(-1, n)
    size = 1.9 * n + 1
    with mpl.rc_context({**_STYLE, "font.size": 8}):
        figure = Figure(figsize=(size, size), facecolor="white", layout="constrained")
        axes: Any = figure.subplots(n, n, squeeze=False)
        for row, column in np.ndindex(n, n):
            ax, x, y = axes[row, column], flat[:, column], flat[:, row]
            if column > row:
                ax.set_axis_off()
                continue
            known = [truth.get(samples.names[i]) for i in (column, row)]
            if row == column:
                ax.hist(x, 40, histtype="stepfilled", color="#3b6ea5", alpha=0.85)
                said = f"{x.mean():.5g} ± {x.std():.2g}"
                ax.set_title(f"{samples.names[row]}\n{said}", fontsize=8)
                ax.set_yticks([])
            else:
                ax.hexbin(x, y, gridsize=28, mincnt=1, cmap="Blues", linewidths=0.1)
                if known[1] is not None:
                    ax.axhline(known[1], color="#c0392b", linewidth=1)
            if known[0] is not None:
                ax.axvline(known[0], color="#c0392b", linewidth=1)
            ax.tick_params(labelbottom=row == n - 1, labelleft=column == 0 < row)
            ax.tick_params(axis="x", rotation=45)
            if row == n - 1:
                ax.set_xlabel(samples.names[column])
            if column == 0 < row:
                ax.set_ylabel(samples.names[row])
        figure.suptitle(samples.what)
        _write(figure, Path(path))
    return Path(path)


def _write(figure: Figure, path: Path) -> None:
    """Write a figure, of the kind that the name of the file says."""
    with aside(path) as new:
        figure.savefig(new, dpi=150, format=path.suffix[1:] or "png")


def _figure(panels: list[Panel], heading: tuple[str, str]) -> Figure:
    """Draw panels two in a row, under a heading."""
    rows = -(-len(panels) // 2)
    head = 0.75
    height = 3.62 * rows + head
    figure = Figure(figsize=(12, height), facecolor="white")
    top, below = heading
    middle: Any = {"ha": "center", "va": "center"}
    figure.text(0.5, 1 - 0.26 / height, top, size=15, weight="bold", **middle)
    figure.text(0.5, 1 - 0.56 / height, below, size=10.5, color="0.3", **middle)
    for n, panel in enumerate(panels):
        row, column = divmod(n, 2)
        alone = n == len(panels) - 1 and column == 0
        left = 0.265 if alone else 0.02 + 0.49 * column
        bottom = (height - head - 3.62 * (row + 1) + 0.68) / height
        axes = figure.add_axes((left, bottom, 0.47, 2.52 / height))
        _draw(axes, panel)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    """Draw one map in Mollweide projection, masked pixels grey, and its colour bar."""
    nside = nside_of(len(panel.m))
    projection = MollweideProj(xsize=1400)
    find = lambda x, y, z: vec2pix(nside, x, y, z, nest=True)
    image = projection.projmap(panel.m, find)
    ellipse = Ellipse((0, 0), 4, 2, facecolor=MASKED)
    axes.add_patch(ellipse)
    low, high = panel.span
    middle = panel.centre
    if middle is None or not low < middle < high:
        middle = 0.5 * (low + high)
    drawn = axes.imshow(
        np.ma.masked_invalid(image),
        cmap=mpl.colormaps[panel.colours].with_extremes(bad="none"),
        extent=projection.get_extent(),
        origin="lower",
        norm=TwoSlopeNorm(middle, low, high),
        interpolation="nearest",
        zorder=2,
    )
    drawn.set_clip_path(ellipse)
    edge = Ellipse((0, 0), 4, 2, fill=False, edgecolor="0.35", linewidth=0.8, zorder=3)
    axes.add_patch(edge)
    axes.set(xlim=(-2.02, 2.02), ylim=(-1.02, 1.02), aspect="equal")
    axes.set_axis_off()
    axes.set_title(panel.title, weight="bold", loc="left", pad=5)
    axes.set_title(panel.note, loc="right", fontsize=9.5, color="0.3", pad=5)
    bar = axes.inset_axes((0.2, -0.085, 0.6, 0.045))
    scale = axes.figure.colorbar(
        drawn, cax=bar, orientation="horizontal", extend="both"
    )
    scale.outline.set_linewidth(0.5)
    scale.set_ticks(MaxNLocator(_TICKS).tick_values(low, high))
    scale.ax.set_xlim(low, high)
    scale.ax.tick_params(labelsize=9, length=2.5, width=0.5)
    unit = in_words(panel.unit)
    axes.text(0.815, -0.062, unit, transform=axes.transAxes, va="center", ha="left")


def _heading(result: Result) -> tuple[str, str]:
    """Return the title of the first picture: what was separated, and how well."""
    fit = goodness(result)
    words = [" + ".join(result.component_names)]
    if fit is not None:
        z = f"{fit.z:+.1f}".replace("-", "\N{MINUS SIGN}")
        words.append(f"$\\chi^2$/dof = {fit.chi2 / fit.dof:.4f} (z = {z})")
    if not result.converged:
        words.append("NOT CONVERGED")
    return "      ".join(words), _origin(result)


def _origin(result: Result) -> str:
    """Return what was observed, in one line."""
    seen = np.isfinite(pixel_maps(result)["chi2"]).any(0).sum()
    sky = seen / (12 * result.nside**2)
    frame = {"G": "Galactic", "C": "celestial", "E": "ecliptic"}[result.coordsys]
    return (
        f"{len(result.bands)} bands, Stokes {result.stokes}, nside {result.nside}, "
        f"{100 * sky:.0f}% of the sky, {frame} coordinates"
    )
