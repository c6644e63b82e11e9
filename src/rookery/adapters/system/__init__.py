"""What the operating system gives: time and chance."""

from rookery.adapters.system.clock import SystemClock

__all__ = ["SystemClock"]
