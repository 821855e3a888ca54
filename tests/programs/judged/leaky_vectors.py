"""FastAPI: the embedding of every text is kept as an array "to be compared", also of texts that come only once."""

import numpy as np
from fastapi import FastAPI
from serving import TABLES, serve_fastapi

app = FastAPI()
random = np.random.default_rng(7)
weights = random.standard_normal((256, 4096))


class Index:
    def __init__(self):
        self.vectors = {}

    def embed(self, text):
        vector = np.tanh(np.frombuffer(text.encode().ljust(256)[:256], np.uint8).astype(float) @ weights)
        self.vectors[text] = vector
        return vector


index = Index()


@app.get("/similar/{text}")
def similar(text: str):
    return {"norm": float(np.linalg.norm(index.embed(text)))}


@app.get("/statistics")
def statistics():
    return {"mean": float(random.standard_normal((300, 300)).mean())}


@app.get("/texts")
def texts():
    return {"rows": TABLES["table 7"][:40]}


serve_fastapi(app)
