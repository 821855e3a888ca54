"""Instruments in a subinterpreter, beside a probe that runs in the main one."""

import os
import sys

from opentelemetry.instrumentation.auto_instrumentation import initialize
from own import look, say

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

code = f"""
import sys
sys.path[:] = {sys.path!r}
import logging
logging.basicConfig(format="%(message)s")
from otel_memory import MemoryInstrumentor
MemoryInstrumentor().instrument()
import threading
assert not [one for one in threading.enumerate() if one.name.startswith("otel-memory")]
import os
os.write(1, b'{{"sub": "runs on"}}\\n')
"""
initialize()  # by hand: the launcher would prepare each subinterpreter, too
before = look("main")
for _ in range(2):
    sub = interpreters.create()
    failure = (getattr(interpreters, "run_string", None) or interpreters.exec)(sub, code)
    if failure is not None:
        os.write(1, b'{"sub": "refused by an extension module"}\n')
        os.write(2, f"{failure}\n".encode())
    interpreters.destroy(sub)
after = look("main")
say({**after, "same": before["instance"] == after["instance"]})
