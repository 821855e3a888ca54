"""A collector of measurements without requests: rows pile up for forty seconds and are then written and let go."""

import json
import random
import time
import zlib

from serving import load_tables

load_tables()
rows = []
written = 0
last = time.monotonic()
while True:
    number = len(rows)
    rows.extend({"sensor": number % 50, "value": random.random(), "note": f"row {number + n}"} for n in range(60))
    time.sleep(0.05)
    if time.monotonic() - last > 40:
        written += len(zlib.compress(json.dumps(rows).encode()))
        rows = []
        last = time.monotonic()
