"""How a server is, as it tells everyone."""

from msgspec import Struct


class Status(Struct, frozen=True):
    """The state of the server's parts: `ok`, or the code of what is wrong."""

    version: str
    ready: bool
    """Whether to send requests there. Without the ranking tweets and feeds go on, so only the store decides."""
    draining: bool
    """Whether it was told to stop, and answers until others know."""
    store: str
    ranking: str
    jobs: str
    """The background jobs: `ok`, or the names of those that end again and again; then the server is not ready."""
    uptime_seconds: int
    fanout_backlog: int
