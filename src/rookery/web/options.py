"""What the web application is made with. It knows nothing of the framework, which is long to import."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from rookery.services.accounts import Accounts
from rookery.services.feeds import Feeds
from rookery.services.follows import Follows
from rookery.services.health import Health
from rookery.services.top import Top
from rookery.services.tweets import Tweets


@dataclass(frozen=True, slots=True)
class Services:
    """What people can do here."""

    accounts: Accounts
    follows: Follows
    tweets: Tweets
    feeds: Feeds
    top: Top
    health: Health


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Requests a minute by token and by address."""

    token: int
    address: int
    registrations: int
    """Registrations an hour from one network."""


@dataclass(frozen=True, slots=True)
class WebOptions:
    """How the web behaves; `rookery.config` holds the defaults and what each means."""

    open_mode: bool
    public_reads: bool
    rate_limits: RateLimits | None
    cors_origins: frozenset[str]
    allowed_hosts: frozenset[str]
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
