"""A classic daemon: forks twice, leaves its session, its folder and its standard streams, and works on."""

import os
import sys

from own import look, say

if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
report = os.open(sys.argv[1], os.O_WRONLY)
os.chdir("/")
nothing = os.open(os.devnull, os.O_RDWR)
for stream in range(3):
    os.dup2(nothing, stream)
os.dup2(report, 1)
say(look("daemon"))
