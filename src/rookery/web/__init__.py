"""HTTP: the one place that knows statuses and headers."""
