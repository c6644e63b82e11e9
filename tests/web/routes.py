"""What paths the application has, asked of the application itself."""

import re
from pathlib import Path

from litestar.routes import HTTPRoute

from rookery.adapters.system import SystemClock
from rookery.config import Settings
from rookery.web.app import create_routes
from rookery.wiring import web_options
from tests.web.site import API


def all_routes() -> dict[str, set[str]]:
    """Every path, as `/tweet/{user_id}`, and the methods that have a handler there."""
    app = create_routes(None, web_options(Settings(data=Path("never-made"))), SystemClock())
    return {
        re.sub(r":\w+\}", "}", route.path): {str(method) for method in route.methods} - {"OPTIONS"}
        for route in app.routes
        if isinstance(route, HTTPRoute)
    }


def api_routes() -> dict[str, set[str]]:
    """Those that the document speaks of."""
    apart = {API, f"{API}/openapi.json", f"{API}/assets/{{name}}"}
    return {path: methods for path, methods in all_routes().items() if path.startswith(API) and path not in apart}


def filled(path: str) -> str:
    """A path with something in its places."""
    name = "rookery.css" if path.startswith("/static") else "start.js"
    return re.sub(r"\{[^}]*\}", "@ada", path.replace("{name}", name))
