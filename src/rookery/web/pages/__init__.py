"""HTML pages, for people without a client."""
