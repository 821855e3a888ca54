"""Tasks of a celery application whose broker and results are folders."""

import os
import signal

from celery import Celery
from server_app import own

here = os.getcwd()
app = Celery("correct", broker="filesystem://", backend=f"file://{here}/results")
app.conf.update(
    broker_transport_options={
        "data_folder_in": f"{here}/queue",
        "data_folder_out": f"{here}/queue",
        "control_folder": f"{here}/control",
        "processed_folder": f"{here}/processed",
        "polling_interval": 0.05,
    },
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    worker_lost_wait=0.5,
)


@app.task
def say_own():
    return own()


@app.task
def die():
    os.kill(os.getpid(), signal.SIGKILL)
