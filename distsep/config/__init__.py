"""Configuration files: run.toml and sky.toml, checked whole before anything runs."""

from distsep.config.errors import ConfigError
from distsep.config.run import RunConfig, read_config
from distsep.config.sky import SkyConfig, read_sky

__all__ = ["ConfigError", "RunConfig", "SkyConfig", "read_config", "read_sky"]
