"""The page's files over HTTP: their types and how long a browser may keep them. Never makes content."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".map": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}


class Page(StaticFiles):
    """The page's files: to be asked for again each time, answered with 304 where nothing changed."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        """As Starlette's, with types that don't depend on the machine's own table."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        if response.status_code != 304:
            suffix = Path(full_path).suffix.lower()
            kind = _TYPES.get(suffix, "application/octet-stream")
            textual = kind.startswith("text/")
            response.headers["Content-Type"] = f"{kind}; charset=utf-8" if textual else kind
        response.headers["Cache-Control"] = "no-cache"
        return response
