"""One application for every server: each worker holds an amount of its own and says what the probe says of it."""

import json
import os

ballast = b""


def own():
    """What this process is, and what the probe here says that it is."""
    global ballast
    ballast = ballast or b"x" * (1 + os.getpid() % 8) * 6_000_000
    from otel_memory.probe import lifecycle

    probe = lifecycle.running_probe()
    if probe is None:
        return {"pid": os.getpid(), "probe": False}
    from own import instance_id, vm_rss

    (info,) = probe._parts.process._observe_info()
    told, kernels = probe._parts.process.read().rss_bytes, vm_rss()
    return {
        "pid": os.getpid(),
        "probe": True,
        "told_pid": info.attributes["process.pid"],
        "told": told,
        "kernels": kernels,
        "instance": instance_id(),
        "failures": probe.ledger.failures,
        "works": probe._ticker._thread.is_alive(),
    }


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(own()).encode()]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = json.dumps(own()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
