"""Rookery, a self-hosted Twitter server."""

__version__ = "0.1.0"
