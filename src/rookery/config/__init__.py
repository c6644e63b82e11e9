"""Settings: what there is to set, and how values come from files, the environment and flags."""

from rookery.config.settings import (
    SPECS,
    ConfigError,
    FlagValue,
    Loaded,
    Settings,
    Spec,
    load,
    reference,
)

__all__ = ["SPECS", "ConfigError", "FlagValue", "Loaded", "Settings", "Spec", "load", "reference"]
