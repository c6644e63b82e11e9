"""What Rookery is measured against: the same bytes from a bare ASGI responder, and from a bare Litestar route.

`python -m bench.bare asgi|litestar ANSWER`, where ANSWER is a JSON file with the headers and the body. It serves with
uvicorn set as Rookery sets it (uvloop, httptools, no access log), on a free port that it tells on stderr.
"""

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop
from litestar import Litestar, Response
from litestar import get as route

ASGI, LITESTAR = "asgi", "litestar"


class Answer(msgspec.Struct):
    """What to say to any request. The server itself adds the date."""

    headers: list[tuple[str, str]]
    body: str


def asgi_app(answer: Answer) -> Any:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    body = {"type": "http.response.body", "body": answer.body.encode()}

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(start)
        await send(body)

    return app


def litestar_app(answer: Answer) -> Any:
    body = answer.body.encode()
    own = ("content-type", "content-length")  # which Litestar adds itself
    headers = {name: value for name, value in answer.headers if name not in own}
    media: Any = dict(answer.headers)["content-type"]

    @route("/api/v1/feed/{user_id:str}")
    async def feed(user_id: str, limit: int = 10, cursor: str | None = None) -> Response[bytes]:  # noqa: ARG001
        return Response(body, media_type=media, headers=headers)

    return Litestar([feed], openapi_config=None, logging_config=None)


async def _serve(app: Any, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
    )
    await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    kind, path = sys.argv[1:]
    answer = msgspec.json.decode(Path(path).read_bytes(), type=Answer)
    app = {ASGI: asgi_app, LITESTAR: litestar_app}[kind](answer)
    with socket.create_server(("127.0.0.1", 0), backlog=2_048) as listener:
        listener.setblocking(False)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(app, listener))


if __name__ == "__main__":
    main()
