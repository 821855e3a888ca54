"""Starts a server, asks it from several threads at once, ends it by SIGTERM, and says what it answered."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time

SOCKET, REQUESTS, THREADS, SECONDS = sys.argv[1], int(sys.argv[2]), 4, 60


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(SOCKET)


def ask():
    connection = Connection("localhost")
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def ask_until_answered():
    """A worker that has served its time may close a connection that it had not begun to read."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return ask()
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.02)


answers, wrong = [], []


def hammer():
    try:
        for _ in range(REQUESTS // THREADS):
            answers.append(ask_until_answered())
            time.sleep(0.02)  # so that workers come and go while it lasts
    except BaseException as error:
        wrong.append(repr(error))


server = subprocess.Popen(sys.argv[3:])
try:
    answers.append(ask_until_answered())
    threads = [threading.Thread(target=hammer) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    server.send_signal(signal.SIGTERM)
    status = server.wait(SECONDS)
finally:
    if server.poll() is None:
        server.kill()
print(json.dumps({"status": status, "answers": answers}))
