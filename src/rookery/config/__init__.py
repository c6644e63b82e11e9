"""Settings: what there is to set, and how values come from files, the environment and flags."""

from rookery.config.settings import (
    IN_PROCESS_CACHES,
    SPECS,
    ConfigError,
    FlagValue,
    Loaded,
    Settings,
    Spec,
    load,
    reference,
)

__all__ = [
    "IN_PROCESS_CACHES",
    "SPECS",
    "ConfigError",
    "FlagValue",
    "Loaded",
    "Settings",
    "Spec",
    "load",
    "reference",
]
