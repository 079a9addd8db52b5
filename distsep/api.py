"""Everything that `import distsep` offers, by name.

What an observation or a result can do with files and pictures is attached here, so that
no room imports from above.
"""

from pathlib import Path
from typing import Any

from distsep import parallel
from distsep.data.observation import Observation
from distsep.data.result import Result
from distsep.data.store import (
    open_observation,
    read,
    save_observation,
    save_result,
)
from distsep.flow import separate
from distsep.model import laws
from distsep.model.components import Component
from distsep.model.instrument import Instrument, instrument, presets
from distsep.model.laws import *  # noqa: F403
from distsep.model.mixing import MixingMatrix
from distsep.model.terms import Dipole, Monopole, Regional, Template


def _report(result: Result, directory: str | Path, **options: Any) -> Any:
    """Draw the pictures and write the table of a result; see `distsep.report`."""
    from distsep.report import report

    return report(result, directory, **options)


Observation.save = save_observation  # pyright: ignore[reportAttributeAccessIssue]
Result.save = save_result  # pyright: ignore[reportAttributeAccessIssue]
Result.report = _report  # pyright: ignore[reportAttributeAccessIssue]

__all__ = [
    "Component",
    "Dipole",
    "Instrument",
    "MixingMatrix",
    "Monopole",
    "Observation",
    "Regional",
    "Result",
    "Template",
    "instrument",
    "open_observation",
    "parallel",
    "presets",
    "read",
    "separate",
]
__all__ += laws.__all__
