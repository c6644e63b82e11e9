"""What the operating system gives: time and chance; and the faults that tests ask of it."""

from rookery.adapters.system.clock import SystemClock
from rookery.adapters.system.faults import steps

__all__ = ["SystemClock", "steps"]
