"""One folder per technology: the only place that knows a driver."""
