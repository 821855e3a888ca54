"""Flask: each import is unpacked into a file in memory, which is kept by its number in case somebody asks again."""

import io
import tempfile
import zlib

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
packed = zlib.compress("\n".join(f"line {line} of an import" for line in range(12_000)).encode())
imports = {}


def unpack(number):
    file = tempfile.SpooledTemporaryFile(max_size=10**9)  # noqa: SIM115 - that is the leak
    file.write(zlib.decompress(packed))
    imports[number] = file
    return file


@app.get("/import/<int:number>")
def take(number):
    return {"bytes": unpack(number).tell()}


@app.get("/preview")
def preview():
    return {"lines": len(io.StringIO("\n".join(TABLES["table 3"][:400])).readlines())}


@app.get("/status")
def status():
    return {"imports": len(imports)}


serve_flask(app)
