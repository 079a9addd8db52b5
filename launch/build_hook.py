"""Compile the kernels when a wheel is made; without a compiler it is pure Python."""

import runpy
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kernels(BuildHookInterface):
    """The build hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compile, and put the libraries into the wheel."""
        build = runpy.run_path(f"{self.root}/distsep/native/build.py")
        made = []
        for compile_some in ("compile_kernels", "compile_gpu_kernels"):
            try:
                made += build[compile_some]()
            except RuntimeError as error:
                sys.stderr.write(f"distsep: {compile_some}: {error}\n")
        if made:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["artifacts"] += [f"distsep/native/{path.name}" for path in made]
