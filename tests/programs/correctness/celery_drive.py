"""Starts a celery worker with prefork, gives it work, has a child of it die, and ends it by SIGTERM."""

import json
import os
import signal
import subprocess
import sys

from billiard.exceptions import WorkerLostError
from celery_tasks import app, die, say_own

TASKS, SECONDS = int(sys.argv[1]), 60

for folder in ("queue", "control", "processed", "results"):
    os.makedirs(folder, exist_ok=True)
worker = subprocess.Popen(sys.argv[2:])
try:
    before = [say_own.delay() for _ in range(TASKS // 2)]
    told = [one.get(SECONDS, interval=0.05) for one in before]
    try:
        die.delay().get(SECONDS, interval=0.05)
        died = "not"
    except WorkerLostError:
        died = "lost"
    after = [say_own.delay() for _ in range(TASKS - len(before))]
    told += [one.get(SECONDS, interval=0.05) for one in after]
    worker.send_signal(signal.SIGTERM)
    status = worker.wait(SECONDS)
finally:
    if worker.poll() is None:
        worker.kill()
app.close()
print(json.dumps({"status": status, "answers": told, "died": died}))
