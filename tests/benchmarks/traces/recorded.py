"""Reads the labelled traces that are kept outside the repository (``leak_traces.npz`` and ``.json``)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.benchmarks.traces.shape import Trace

DEFAULT = Path(__file__).resolve().parents[4] / "shared" / "data"


class NoTraces(Exception):
    """The folder does not hold the recorded traces; the message says what to do."""


def read(folder: Path = DEFAULT) -> list[Trace]:
    """All recorded traces, in the order of their index. Raises ``NoTraces``."""
    index, arrays = folder / "leak_traces.json", folder / "leak_traces.npz"
    if not index.is_file() or not arrays.is_file():
        raise NoTraces(f"no leak_traces.json and leak_traces.npz in {folder}: name their folder with --data DIR")
    traces = []
    with np.load(arrays) as columns:
        for row in json.loads(index.read_text()):
            name = row["id"]
            traces.append(
                Trace(
                    name=name,
                    family=row["family"],
                    leak=row["leak"],
                    severity=row["severity"],
                    origin="recorded",
                    times=columns[f"{name}_time"].astype(float),
                    values=columns[f"{name}_value"].astype(float),
                    covariates={c: columns[f"{name}_{c}"].astype(float) for c in row["covariates"]},
                    onset=row["onset"],
                    rate=row["rate"],
                    limit=row["limit"],
                    time_to_limit=row["time_to_limit"],
                    kind=row["kind"],
                )
            )
    return traces
