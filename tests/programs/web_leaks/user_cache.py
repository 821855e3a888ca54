"""Leaks: profiles are cached by session token, and tokens never come twice. Flask."""

import json
import uuid

from flask import Flask, request
from serving import serve_flask

app = Flask(__name__)
PROFILES = {}


def load_profile(token):
    rows = [{"field": f"f{number}", "value": f"{token}-{number}", "seen": number * 1.5} for number in range(300)]
    return json.loads(json.dumps({"token": token, "rows": rows}))


def profile_of(token):
    if token not in PROFILES:
        PROFILES[token] = load_profile(token)
    return PROFILES[token]


@app.get("/leak")
def account():
    token = request.headers.get("X-Session") or uuid.uuid4().hex
    return {"rows": len(profile_of(token)["rows"])}


@app.get("/work")
def report():
    return {"rows": sorted((f"row {number}" for number in range(800)), reverse=True)[:20]}


serve_flask(app)
