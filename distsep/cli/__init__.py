"""The command `distsep`: what the terminal asks for, and what it is told."""

from distsep.cli.app import main

__all__ = ["main"]
