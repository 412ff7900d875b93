"""The playground: a page of static files, without a build step and without anything from elsewhere.

In: an application. Out: `/` and `/static/NAME` on it. The page talks to the API as any other client does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Response

FOLDER = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {
    "/" if path.name == "index.html" else f"/static/{path.name}": path
    for path in sorted(FOLDER.iterdir())
    if path.suffix in TYPES
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_playground(app: FastAPI) -> None:
    """Add one route a file: no path is made of what a client sends."""
    for route, path in FILES.items():
        app.add_api_route(route, _sender(path), include_in_schema=False)


def _sender(path: Path) -> Callable[[], Response]:
    def send() -> Response:
        return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers=HEADERS)

    return send
