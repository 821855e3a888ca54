"""Flask: profiles are cached by session token, and tokens never come twice."""

import json

from flask import Flask
from serving import TABLES, serve_flask

app = Flask(__name__)
PROFILES = {}


def load_profile(token):
    rows = [{"field": f"f{number}", "value": f"{token}-{number}", "seen": number * 1.5} for number in range(220)]
    return json.loads(json.dumps({"token": token, "rows": rows}))


@app.get("/profile/<token>")
def profile(token):
    if token not in PROFILES:
        PROFILES[token] = load_profile(token)
    return {"rows": len(PROFILES[token]["rows"])}


@app.get("/products")
def products():
    return {"products": TABLES["table 3"][:40]}


@app.get("/search")
def search():
    return {"hits": sorted((row for row in TABLES["table 5"][:900]), reverse=True)[:10]}


@app.get("/basket")
def basket():
    return json.loads(json.dumps({"lines": [{"article": number, "price": number * 1.1} for number in range(150)]}))


serve_flask(app)
