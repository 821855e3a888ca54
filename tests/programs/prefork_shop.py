"""A small Flask shop for gunicorn: a worker can be told to hold an amount of memory of its own."""

import os

from flask import Flask, jsonify

app = Flask(__name__)
held = bytearray()


@app.get("/pid")
def pid():
    return jsonify(pid=os.getpid())


@app.get("/hold/<amounts>")
def hold(amounts):
    """``PID:MIB,…``: whichever worker this comes to holds what stands beside its own process id."""
    global held
    wanted = dict(map(int, pair.split(":")) for pair in amounts.split(","))
    size = wanted[os.getpid()] * 1024 * 1024
    if len(held) != size:
        held = bytearray(b"x") * size
    return jsonify(pid=os.getpid(), held=len(held))
