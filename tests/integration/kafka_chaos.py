"""Three analyzers under load that are killed, sent away and brought back at random moments; and what they told.

``python -m tests.integration.kafka_chaos [KILLS] [SEED]`` runs it by itself.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from dataclasses import dataclass, field

from tests.harness import Analyzer, Kafka, wait_until
from tests.harness.process import Child, clean_environment
from tests.integration import kafka_world as world

PARTITIONS = 6
PROCESSES = 8
SAMPLE_SECONDS = 0.25
"""Between two rounds of samples, by the clock; a second of event time."""
LEAST_SAMPLES = 160
"""Of each process: those that leak are young for 75 of them, and their alerts then fire."""
PAUSE_SECONDS = (1.0, 6.0)
"""Between two of what happens to the group."""
CATCH_UP_SECONDS = 300.0


@dataclass
class Member:
    """An analyzer that may be there or not. It is started without waiting for it."""

    analyzer: Analyzer
    child: Child | None = None

    @property
    def there(self) -> bool:
        return self.child is not None and self.child.running

    def come(self) -> None:
        launch = self.analyzer.launch()
        env = clean_environment(launch.env)
        self.child = Child(launch.argv, env=env, cwd=self.analyzer.folder, log=self.analyzer.log)

    def leave(self) -> None:
        if self.child is not None:
            self.child.stop()

    def die(self) -> None:
        if self.child is not None:
            self.child.kill()


@dataclass
class Report:
    """What happened."""

    kills: int = 0
    joins: int = 0
    leaves: int = 0
    samples: int = 0
    alerts: int = 0
    seconds: float = 0.0
    moments: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.joins} joins, {self.leaves} leaves in {self.seconds:.0f} s under "
            f"{self.samples} records: {self.alerts} changes of alerts, each once; scores equal"
        )


def run(kills: int, seed: int) -> Report:
    """Raises `AssertionError` where what was told is not what one undisturbed analyzer tells of the same log."""
    chance = random.Random(seed)
    report = Report()
    with Kafka() as kafka:
        world.make_topics(kafka, PARTITIONS)
        processes = world.fleet_of(PROCESSES, world.now_less(3000))
        members = [Member(world.analyzer(kafka, name)) for name in ("a", "b", "c")]
        stop = threading.Event()
        try:
            with world.Fleet(kafka, processes, PARTITIONS) as fleet:
                load = threading.Thread(target=_send, args=(fleet, stop), daemon=True)
                load.start()
                for member in members:
                    member.come()
                began = time.monotonic()
                while report.kills < kills or fleet.sent < LEAST_SAMPLES * PROCESSES:
                    time.sleep(chance.uniform(*PAUSE_SECONDS))
                    _happen(chance, members, report, time.monotonic() - began)
                for member in members:
                    if not member.there:
                        member.come()
                # Some more, judged by whom the chaos has left it to.
                time.sleep(3)
                stop.set()
                load.join(60)
                report.seconds = time.monotonic() - began
                report.samples = fleet.sent
                last = fleet.sent // len(processes) - 1
                with world.committed_reader(kafka) as reader:
                    wait_until(
                        lambda: world.caught_up(reader, processes, last),
                        timeout_seconds=CATCH_UP_SECONDS,
                        what="all of it judged",
                        every=1.0,
                    )
                told = world.told_in_all(kafka)
        except BaseException:
            print(*(member.analyzer.tail(40) for member in members), sep="\n", file=sys.stderr)
            print(report, *report.moments, sep="\n", file=sys.stderr)
            raise
        finally:
            stop.set()
            for member in members:
                member.die()
                member.analyzer.close()
        reference = world.referee(kafka, processes, last)
        report.alerts = len(reference.alerts)
        assert report.alerts > 0
        world.assert_same(told, reference)
    return report


def _send(fleet: world.Fleet, stop: threading.Event) -> None:
    index = 0
    while not stop.is_set():
        fleet.send(index)
        index += 1
        stop.wait(SAMPLE_SECONDS)


def _happen(chance: random.Random, members: list[Member], report: Report, at: float) -> None:
    there = [member for member in members if member.there]
    away = [member for member in members if not member.there]
    what = chance.choices(("kill", "come", "leave"), (6, 5, 1))[0]
    if away and (what == "come" or not there):
        chance.choice(away).come()
        report.joins += 1
    elif there and what == "leave" and len(there) > 1:
        chance.choice(there).leave()
        report.leaves += 1
    elif there:
        chance.choice(there).die()
        report.kills += 1
        what = "kill"
    report.moments.append(f"{at:.1f} {what}")


if __name__ == "__main__":
    KILLS, SEED = (int(given) for given in (*sys.argv[1:], *("20", "1")[len(sys.argv) - 1 :]))
    print(run(KILLS, SEED), flush=True)
