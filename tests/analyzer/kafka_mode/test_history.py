"""The chart of a process that has come from another worker: all of the log's window, and not only of the windows."""

from __future__ import annotations

import time
from pathlib import Path

from otel_memory.analyzer.decode import decode
from otel_memory.analyzer.kafka.owned import Owned
from otel_memory.analyzer.keeper import Keeper
from otel_memory.analyzer.stats import Stats
from otel_memory.analyzer.store import Store
from tests.analyzer.kafka_mode.world import made_log, new_partition
from tests.analyzer.made_up import MadeUp

SAMPLES = 700


def test_a_replay_writes_more_than_the_windows_hold(tmp_path: Path) -> None:
    begin = float(int(time.time())) - SAMPLES
    processes = [MadeUp(name, begin=begin) for name in ("one", "two")]
    log = made_log(processes, float(SAMPLES), silent=lambda _process, _index: False)
    store = Store.open(tmp_path / "analyzer.db")
    try:
        keeper = Keeper(store, (), Stats())
        owned = Owned(new_partition(), 0, 0, len(log), None, None)
        for one in log:
            owned.partition.replay(decode(one.value, "metrics", "protobuf"), one.at)
            filled = owned.filled(1)
            if filled is not None:
                keeper.keep(filled, one.at)
        keeper.keep(owned.go_live(), log[-1].at)
        charts = [restored.samples["memory"][0] for restored in store.restore(begin - 1)]
        assert [len(times) for times in charts] == [SAMPLES, SAMPLES]
    finally:
        store.close()
