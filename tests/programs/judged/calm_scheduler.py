"""A scheduler without requests: every half minute a report is built in a database in memory, every ten s a backup."""

import sched
import sqlite3
import time
import zlib

from serving import TABLES, load_tables

scheduler = sched.scheduler()


def report():
    with sqlite3.connect(":memory:") as database:
        database.execute("create table rows (number integer, text text)")
        lines = [(number, f"line {number} " * 10) for number in range(60_000)]
        database.executemany("insert into rows values (?, ?)", lines)
        found = database.execute("select number % 100, count(*), max(text) from rows group by 1").fetchall()
    database.close()
    scheduler.enter(30, 1, report)
    return len(found)


def backup():
    text = "\n".join(TABLES[f"table {int(time.monotonic()) % 30}"]).encode()
    packed = [zlib.compress(text, 6) for _ in range(2)]
    scheduler.enter(10, 1, backup)
    return sum(map(len, packed))


def heartbeat():
    scheduler.enter(0.5, 2, heartbeat)
    return sorted(str(number) for number in range(500))


load_tables()
scheduler.enter(5, 1, report)
scheduler.enter(2, 1, backup)
scheduler.enter(0, 2, heartbeat)
scheduler.run()
