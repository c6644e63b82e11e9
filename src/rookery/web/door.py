"""What happens to every request before and after its handler: identity, limits, headers and one line in the log."""

import asyncio
import re
import time
from collections.abc import Iterable
from secrets import token_hex
from typing import Any, Protocol

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from rookery.domain.errors import Failure, Unauthenticated, Unavailable, is_out_of_memory
from rookery.domain.tallies import Reading, Spreads
from rookery.domain.users import NAME_PATTERN
from rookery.ports.tracer import UNTRACED, Tracer
from rookery.services.callers import ANYONE, NOBODY, Caller
from rookery.web.context import caller_of, code_of, name_of, note_code, set_caller, set_meter, set_network
from rookery.web.counters import Counters
from rookery.web.heads import is_canonical
from rookery.web.limits import Allowance, Limiter, Meter
from rookery.web.options import RateLimits, Services, WebOptions
from rookery.web.origins import Addresses, check_host, check_origin, limited_as, log_address, network_of
from rookery.web.problems import Refusal, out_of_memory, send_problem

_log = structlog.get_logger("rookery.request")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:\-]{1,64}")
_EXPOSED = b"Link, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, X-Request-Id"
_HANDLE = re.compile(NAME_PATTERN)
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_HEALTH_CHECKS = frozenset({"/livez", "/readyz", "/api/v1/livez", "/api/v1/readyz"})
"""Paths without a limit, which therefore look at no token either: each look may ask the store."""
_ITS_OWN_DELETION = frozenset({("DELETE", "/user"), ("DELETE", "/api/v1/user")})
"""Where a token that was deleted with its user is heard once more."""
_REFUSED = frozenset({401, 403, 421, 429})
"""Statuses whose log lines name the client's address, so that it can be banned (deploy/fail2ban)."""
MAX_AT_ONCE = 2_048
"""Requests under way. More are refused at once, which is kinder than to answer all of them late."""
CLIENT_GONE = 499
"""The status, in the log and the metrics, of a request that was not answered as its client had gone."""
MAX_WRITES_AT_ONCE = 1_536
"""Those of them that may be writes: while the store takes none, they wait, and reads find places."""
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
Headers = list[tuple[bytes, bytes]]


class _Clock(Protocol):
    def monotonic(self) -> float: ...


class Door:
    """The outermost ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        services: Services,
        options: WebOptions,
        clock: _Clock,
        tracer: Tracer = UNTRACED,
        *,
        counters: Counters | None = None,
    ) -> None:
        self._app = app
        self._tracer = tracer
        self._accounts = services.accounts
        self._health = services.health
        self._options = options
        self._limiter = Limiter(clock.monotonic, counters)
        self._addresses = Addresses(options.trusted_proxies)
        self._under_way = 0
        self._writing = 0
        self._took: Spreads[tuple[str, str, int]] = Spreads()

    def readings(self) -> Iterable[Reading]:
        """How often each route was asked and how long its answers took."""
        yield Reading("requests_under_way", f"Requests that are being answered, of {MAX_AT_ONCE}.", self._under_way)
        for (method, route, status), took in self._took.items():
            yield Reading(
                "request_seconds",
                "How long answers took, by method, route and status; of each route, whatever its path.",
                took,
                {"method": method, "route": route, "status": str(status)},
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        peer = (scope.get("client") or ("", 0))[0]
        named = self._addresses.trusts(peer)
        visit = _Visit(scope, send, self._options, named=named, last=self._health.draining)
        with self._tracer.request(visit.headers if named else {}) as ending:
            try:
                await self._answer(visit, receive, peer)
            finally:
                self._under_way -= visit.is_under_way
                self._writing -= visit.is_under_way and visit.method not in _READS
                what, seconds = visit.end()
                self._took.add(what, seconds)
                ending(*what, visit.request_id)

    async def _answer(self, visit: "_Visit", receive: Receive, peer: str) -> None:
        try:
            await self._admit(visit, peer)
            if not visit.is_canonical:
                raise Refusal(404)
            await self._app(visit.scope, _receiving(receive), visit.send)
        except Failure as failure:
            note_code(visit.scope, failure.code)
            await send_problem(visit.send, failure)
        except asyncio.CancelledError:
            visit.status = visit.status or CLIENT_GONE
            raise
        except Exception as error:
            if visit.status:
                raise  # the answer has begun; the server closes the connection
            if is_out_of_memory(error):
                await send_problem(visit.send, out_of_memory())
                return
            _log.exception("unhandled error", request_id=visit.request_id)
            await send_problem(visit.send, Refusal(500))

    async def _admit(self, visit: "_Visit", peer: str) -> None:
        """Find out who asks and whether he may ask now.

        Raises:
            Failure: with what the answer shall say.
        """
        self._begin(visit)
        options, headers, scope = self._options, visit.headers, visit.scope
        visit.client = self._addresses.client(peer, headers)
        if options.open_mode or not self._addresses.trusts(peer):  # else the proxy answers for the name
            check_host(headers, options.allowed_hosts)
        address = limited_as(visit.client)
        caller, refused = NOBODY, None
        if options.open_mode:
            caller = ANYONE
        elif b"authorization" in headers and not visit.is_health_check:
            try:
                caller = await self._authenticate(headers[b"authorization"], address)
            except Failure as failure:
                refused = failure
        if options.rate_limits and not visit.is_health_check:
            visit.allowance = self._count(options.rate_limits, caller, address)
            visit.allowance.require()
        check_origin(visit.method, headers, options.cors_origins)
        if refused:
            caller = await self._deleted(visit, refused)
        set_caller(scope, caller, address)
        network = network_of(visit.client)
        set_network(scope, network)
        if options.rate_limits:
            set_meter(scope, Meter(self._limiter, options.rate_limits, address, network, visit.note_allowance))

    def _begin(self, visit: "_Visit") -> None:
        """Take a place among the requests under way.

        Raises:
            Unavailable: `busy`.
        """
        writes = visit.method not in _READS
        full = self._under_way >= MAX_AT_ONCE or (writes and self._writing >= MAX_WRITES_AT_ONCE)
        if full and not visit.is_health_check:
            raise Unavailable("busy", "Too many requests are under way; try again in a moment.")
        self._under_way += 1
        self._writing += writes
        visit.is_under_way = True

    def _count(self, limits: RateLimits, caller: Caller, address: str) -> Allowance:
        """One more request: of a token and of all tokens of its address together, or of an address."""
        if caller.token_hash is None:
            return self._limiter.count(address, limits.address)
        of_token = self._limiter.count(caller.token_hash, limits.token)
        if of_token.remaining < 0:
            return of_token  # and its neighbours pay nothing for it
        of_address = self._limiter.count(f"tokens {address}", limits.address)
        return min(of_token, of_address, key=lambda allowance: allowance.remaining)

    async def _deleted(self, visit: "_Visit", refused: Failure) -> Caller:
        """The caller of a token that is not valid: nobody, who deleted themselves with it and may ask once more.

        Raises:
            Failure: what was `refused`, for any other.
        """
        if (visit.method, visit.scope["path"]) not in _ITS_OWN_DELETION or refused.code != "token_invalid":
            raise refused
        token = visit.headers[b"authorization"].decode("latin-1").partition(" ")[2].strip()
        user = await self._accounts.deleted_by(token)
        if user is None:
            raise refused
        return Caller(deleted=user)

    async def _authenticate(self, header: bytes, address: str) -> Caller:
        """Whose token it is. Tokens that this process does not know have a limit of their own: each asks the store."""
        scheme, _, token = header.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("token_invalid", "Send a token as Authorization: Bearer rk_…")

        def admit() -> None:
            if limits := self._options.rate_limits:
                self._limiter.count(f"unknown tokens {address}", limits.address).require()

        return await self._accounts.authenticate(token.strip(), admit)


class _Visit:
    """One request on its way through: what is added to its answer, and what its log line says.

    One that a trusted proxy has `named` keeps its id. One that may be the `last` of its connection says so.
    """

    def __init__(self, scope: HTTPScope, send: Send, options: WebOptions, *, named: bool, last: bool) -> None:
        self.method: str = scope["method"]
        # HEAD is answered as GET is, without the body. The server outside goes by its own scope, so this is a copy.
        self.scope: Any = {**scope, "method": "GET"} if self.method == "HEAD" else scope
        self.scope["path"] = scope["path"].removesuffix("/") or "/"  # as it is routed
        self.is_canonical = is_canonical(scope["raw_path"])
        """Whether the path may be routed."""
        self._send = send
        self._options = options
        self._began = time.perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"") if named else b""
        self._last = last
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else token_hex(8)
        self.allowance: Allowance | None = None
        self.client = ""
        """The client's address, once it is known."""
        self.is_under_way = False
        self.status = 0

    @property
    def is_health_check(self) -> bool:
        """Whether it is for those who watch the server."""
        return self.scope["path"] in _HEALTH_CHECKS and self.is_canonical

    async def send(self, message: Message) -> None:
        """Pass an answer on, with the headers that all have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*_with_head_allowed(message["headers"]), *self._added()]
        elif message["type"] == "http.response.body" and self.method == "HEAD":
            message["body"] = b""
        await self._send(message)

    def note_allowance(self, allowance: Allowance) -> None:
        """Tell in the answer's headers of a limit that was used up, rather than of the one on requests."""
        self.allowance = allowance

    def _added(self) -> Headers:
        added = [(b"x-request-id", self.request_id.encode()), (b"x-content-type-options", b"nosniff")]
        if self._last:
            added.append((b"connection", b"close"))
        if self.allowance:
            added += self.allowance.headers()
        origin = self.headers.get(b"origin")
        if self._options.cors_origins:
            added.append((b"vary", b"Origin"))
        if origin is not None and origin.decode("latin-1") in self._options.cors_origins:
            added += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]
            if self.method == "OPTIONS" and b"access-control-request-method" in self.headers:
                added += [
                    (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
                    (b"access-control-allow-headers", b"Authorization, Content-Type, Idempotency-Key, X-Request-Id"),
                    (b"access-control-max-age", b"3600"),
                ]
        return added

    def end(self) -> tuple[tuple[str, str, int], float]:
        """Log one line: no text of a tweet, no token, and no query, which may hold names. Tells what it was.

        The address of a client is in it only when the client was refused, and then the name it tried.
        """
        handler = self.scope.get("route_handler")
        route = getattr(handler, "name", None) or next(iter(getattr(handler, "paths", ())), None)
        user = caller_of(self.scope).user
        seconds = time.perf_counter() - self._began
        _log.log(
            30 if self.status >= 500 else 20,
            "request",
            request_id=self.request_id,
            method=self.method,
            route=route,
            status=self.status,
            user=user.name if user else None,
            ms=round(seconds * 1000, 2),
            **(self._refusal() if self.status in _REFUSED else {}),
        )
        return (self.method if self.method in _METHODS else "other", route or "none", self.status), seconds

    def _refusal(self) -> dict[str, str]:
        name = name_of(self.scope)
        tried = {"name": name} if name and _HANDLE.fullmatch(name) else {}  # anything else may be a password
        return {"client": log_address(self.client), "code": code_of(self.scope) or "refused", **tried}


def _receiving(receive: Receive) -> Receive:
    async def receive_body() -> Any:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "incomplete_body", "Whoever sent this went away.")
        return message

    return receive_body


def _with_head_allowed(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """HEAD is allowed wherever GET is; the framework, which never sees a HEAD, does not say so."""
    return [
        (name, b", ".join(sorted({*value.split(b", "), b"HEAD"})))
        if name.lower() == b"allow" and b"GET" in value.split(b", ")
        else (name, value)
        for name, value in headers
    ]
