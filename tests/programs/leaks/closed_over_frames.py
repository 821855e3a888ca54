"""Leaks frames: failed jobs are kept with their exceptions, whose tracebacks keep the variables of every function."""

from requests_loop import serve

failed_jobs = []


def load(number, size):
    document = ["x" * 100 + str(number) + str(part) for part in range(size // 170)]
    raise ValueError(f"document {number} of {len(document)} parts is broken")


def handle(number, size):
    try:
        load(number, size)
    except ValueError as error:
        failed_jobs.append(error)


serve(handle, description=__doc__)
