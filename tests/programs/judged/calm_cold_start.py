"""Flask: rarely used routes import what they need at their first request: a start of a minute or two."""

import importlib

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
NEEDS = {
    "statistics": ("statistics", "fractions"),
    "spreadsheet": ("numpy", "csv"),
    "feeds": ("xml.dom.minidom", "xml.etree.ElementTree", "html.parser"),
    "mail": ("email.mime.multipart", "email.policy", "smtplib", "imaplib"),
    "archive": ("tarfile", "zipfile", "lzma"),
    "client": ("httpx", "asyncio"),
    "models": ("pydantic", "fastapi"),
    "fourier": ("numpy.fft", "numpy.random", "numpy.linalg", "numpy.polynomial"),
}


@app.get("/tools/<name>")
def tool(name):
    for module in NEEDS[name]:
        importlib.import_module(module)
    return {"tool": name}


@app.get("/home")
def home():
    return {"rows": TABLES["table 1"][:30]}


@app.get("/search")
def search():
    return {"hits": sorted(TABLES["table 2"][:400])[:10]}


serve_flask(app)
