"""A Celery worker's tasks, run in place: the results are collected "for the report", which nobody ever writes."""

import random
import time

from celery import Celery, group
from serving import load_tables

app = Celery("judged", broker="memory://", backend="cache+memory://")
app.conf.task_always_eager = True


class Report:
    results = []


@app.task
def count_words(number):
    text = [f"document {number} word {random.randrange(5_000)}" for _ in range(400)]
    return {word: text.count(word) for word in text[:120]}


@app.task
def clean(number):
    return sorted(str(one) for one in range(number, number + 500))[0]


load_tables()
number = 0
while True:
    number += 1
    if number % 2:
        Report.results.append(count_words.delay(number))
    else:
        group(clean.s(number + part) for part in range(3))()
    time.sleep(random.expovariate(10 + 3 * (time.monotonic() % 30 < 15)))
