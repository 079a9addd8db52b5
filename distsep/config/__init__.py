"""Configuration files: sky.toml, run.toml, campaign.toml, checked before they run."""

from distsep.config.campaign import Campaign, read_campaign
from distsep.config.errors import ConfigError
from distsep.config.run import RunConfig, read_config
from distsep.config.sky import SkyConfig, read_sky

__all__ = [
    "Campaign",
    "ConfigError",
    "RunConfig",
    "SkyConfig",
    "read_campaign",
    "read_config",
    "read_sky",
]
