"""Health checks: whether a server lives, and whether it can serve."""

import pytest

from rookery.services.accounts import Accounts
from tests.web.site import NOBODY, Site


async def test_health_checks_look_at_no_token(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no rate limit, and the process lives whether or not its store can say whose a token is."""
    ada = await site.register("ada")

    async def fail(*_: object) -> None:
        raise AssertionError("asked whose a token is")

    monkeypatch.setattr(Accounts, "authenticate", fail)
    for header in (*ada.auth.values(), "Bearer rk_unknown", f"Bearer {NOBODY}", "Basic x", ""):
        for path in ("/livez", "/readyz", "/api/v1/livez", "/api/v1/readyz", "/livez/"):
            for method in ("GET", "HEAD"):
                response = await site.client.request(method, path, headers={"Authorization": header})
                assert response.status_code == 200, (method, path, header)
