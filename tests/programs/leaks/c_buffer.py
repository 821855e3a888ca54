"""Leaks memory of a C library: every request opens a SQLite database in memory, and none is closed."""

import sqlite3

from requests_loop import serve


class Reports:
    open_databases = []


def build_report(number, size):
    database = sqlite3.connect(":memory:")
    database.execute("create table report (line integer, text blob)")
    database.execute("insert into report values (1, zeroblob(?))", (size,))
    Reports.open_databases.append(database)


serve(build_report, kilobytes_a_request=80, kilobytes_a_second=2500, description=__doc__)
