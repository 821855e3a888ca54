"""Flask: a pool of at most thirty-two connections, each with its own database cache and buffer, grows at each peak."""

import random
import sqlite3
import threading
import time

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)


class Connection:
    def __init__(self):
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.database.execute("create table rows (number integer primary key, text text)")
        self.database.executemany("insert into rows values (?, ?)", ((n, f"row {n} " * 20) for n in range(3_000)))
        self.buffer = bytearray(b"x" * 500_000)


class Pool:
    def __init__(self):
        self.idle = []
        self.lock = threading.Lock()
        self.places = threading.Semaphore(32)

    def take(self):
        self.places.acquire()
        with self.lock:
            if self.idle:
                return self.idle.pop()
        return Connection()

    def give_back(self, connection):
        with self.lock:
            self.idle.append(connection)
        self.places.release()


pool = Pool()


@app.get("/query/<int:number>")
def query(number):
    connection = pool.take()
    try:
        found = connection.database.execute("select text from rows where number = ?", (number % 3_000,)).fetchone()
        time.sleep(random.expovariate(2.0))
        return {"found": found}
    finally:
        pool.give_back(connection)


@app.get("/home")
def home():
    return {"rows": TABLES["table 1"][:30]}


serve_flask(app)
