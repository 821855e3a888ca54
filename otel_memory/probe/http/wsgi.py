"""``memory_wsgi_app()``: the endpoints as a WSGI application, for Flask and Django; needs nothing installed.

Owns the way from a WSGI request to ``Endpoints`` and back. It has no event loop and no thread of its own, so it goes
through a fork (a2wsgi's bridge runs a loop on a thread, which a prefork server's workers would not have).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from otel_memory.probe.http.app import mounted_access
from otel_memory.probe.http.endpoints import Asked, Endpoints

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def memory_wsgi_app(
    token: str | None = None, *, protected: bool = False, app: WSGIApplication | None = None, at: str = "/memory"
) -> WSGIApplication:
    """The endpoints as a WSGI application.

    With ``app`` they are put in front of it under the path ``at``, and all other requests go to ``app``:
    ``application = memory_wsgi_app(token="…", app=get_wsgi_application())``. Without, mount it by what the framework
    has. ``token`` and ``protected`` are those of :func:`memory_app`.

    Raises:
        ValueError: the token is empty, or ``at`` is no path.
    """
    endpoints = Endpoints(mounted_access(token, protected))
    if app is None:
        return _application(endpoints)
    prefix = at.rstrip("/")
    if not prefix.startswith("/"):
        raise ValueError(f"at={at!r}: expected a path such as /memory")
    return _in_front(app, prefix, _application(endpoints))


def _in_front(app: WSGIApplication, prefix: str, mine: WSGIApplication) -> WSGIApplication:
    def dispatch(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if not path.startswith(prefix + "/"):
            return app(environ, start_response)
        inner = {
            **environ,
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix,
            "PATH_INFO": path.removeprefix(prefix),
        }
        return mine(inner, start_response)

    return dispatch


def _application(endpoints: Endpoints) -> WSGIApplication:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked = _asked(environ)
        reply = endpoints.answer(asked)
        phrase = HTTPStatus(reply.status).phrase
        start_response(f"{reply.status} {phrase}", list(reply.headers))
        return [] if asked.method == "HEAD" else [reply.body]

    return application


def _asked(environ: dict[str, Any]) -> Asked:
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    if environ.get("CONTENT_LENGTH"):
        headers["content-length"] = str(environ["CONTENT_LENGTH"])
    return Asked(
        str(environ["REQUEST_METHOD"]),
        # PEP 3333: bytes as latin-1
        str(environ.get("PATH_INFO", "")).encode("latin-1", "replace").decode("utf-8", "replace"),
        str(environ.get("QUERY_STRING", "")).encode("utf-8", "replace"),
        headers,
        str(environ.get("REMOTE_ADDR") or "") or None,
    )
