"""What every service here has: tables that it loads as it starts, and a server. No part of what leaks."""

import os

PORT = int(os.environ.get("PORT", "0"))
TABLES = {}


def load_tables(megabytes=30):
    """Reference data, read once."""
    for table in range(megabytes):
        TABLES[f"table {table}"] = [f"row {table} {row} " * 6 for row in range(6_500)]


def serve_wsgi(app):
    """Threads, as a small deployment has them."""
    import logging

    from werkzeug.serving import make_server

    load_tables()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    make_server("127.0.0.1", PORT, app, threaded=True).serve_forever()


serve_flask = serve_wsgi


def serve_fastapi(app):
    """uvicorn, as it is."""
    import uvicorn

    load_tables()
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error", access_log=False)
