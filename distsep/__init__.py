"""distsep: distributed component separation of maps of the microwave sky.

What it offers is listed in `api.py`, and is imported when it is first asked for:
`distsep --help` need not wait for JAX and sympy.
"""

import importlib
import importlib.metadata
import os
import sys
from typing import TYPE_CHECKING, Any

# Everything is computed in float64.
if "jax" in sys.modules:
    sys.modules["jax"].config.update("jax_enable_x64", True)
else:
    os.environ["JAX_ENABLE_X64"] = "1"  # JAX reads it when it is imported

if TYPE_CHECKING:
    from distsep.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("distsep")
    if name == "fgbuster":  # its recipes
        return importlib.import_module("distsep.fgbuster")
    if name == "__all__" or not name.startswith("_"):
        api = importlib.import_module("distsep.api")
        if name == "__all__":
            return list(api.__all__)
        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    own = [name for name in globals() if name.startswith("__")]
    return [*own, *importlib.import_module("distsep.api").__all__]
