"""Serves an application on a port of the system's choice, says it, and ends by itself. No part of what leaks."""

import argparse
import threading


def _seconds():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to serve")
    return parser.parse_args().seconds


def serve_flask(app):
    """Threads, as a small deployment has them."""
    import logging

    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    seconds = _seconds()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"port {server.port}", flush=True)
    threading.Timer(seconds, server.shutdown).start()
    server.serve_forever()


def serve_fastapi(app):
    """uvicorn, as it is."""
    import socket

    import uvicorn

    seconds = _seconds()
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"port {listener.getsockname()[1]}", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))

    def end():
        server.should_exit = True

    threading.Timer(seconds, end).start()
    server.run(sockets=[listener])
