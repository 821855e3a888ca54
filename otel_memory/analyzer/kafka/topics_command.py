"""``otel-memory topics create`` and ``check``: the topics of the analyzer in Kafka mode.

Owns the words and the exit status: 0 all is as it should be, 1 something is not, 2 the cluster can't be asked.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from otel_memory.analyzer.config import SettingsError, add_arguments, load
from otel_memory.analyzer.kafka.client import KafkaError
from otel_memory.analyzer.kafka.mode import connection_of, topics_of
from otel_memory.analyzer.kafka.refusal import Refusal
from otel_memory.analyzer.kafka.topics import DEFAULT_PARTITIONS, create, problems


def main(argv: Sequence[str]) -> int:
    """Create what is missing, or only look."""
    parser = argparse.ArgumentParser(
        prog="otel-memory topics",
        description="Make the topics that are missing, or look whether they are as they should be.",
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=("create", "check"))
    parser.add_argument(
        "--partitions",
        type=int,
        default=DEFAULT_PARTITIONS,
        help=f"of each new topic; as many analyzers can share the work (default: {DEFAULT_PARTITIONS})",
    )
    parser.add_argument(
        "--replication-factor", type=int, default=-1, help="of each new topic (default: as the brokers have it)"
    )
    add_arguments(parser, "kafka_")
    given = vars(parser.parse_args(list(argv)))
    action, partitions, replication = (given.pop(name) for name in ("action", "partitions", "replication_factor"))
    try:
        settings = load(given, os.environ)
    except SettingsError as error:
        print(f"otel-memory topics: {error}", file=sys.stderr)
        return 2
    if not settings.kafka_bootstrap:
        print("otel-memory topics: name the brokers with --kafka-bootstrap HOST:PORT", file=sys.stderr)
        return 2
    if partitions < 1:
        print(f"otel-memory topics: --partitions {partitions}: at least 1 is expected", file=sys.stderr)
        return 2
    logging.getLogger("kafka").propagate = False
    connection, topics = connection_of(settings), topics_of(settings)
    refusal = Refusal(connection.login)
    try:
        with refusal:
            if action == "create":
                window = settings.kafka_window_seconds
                made = create(connection, topics, window_seconds=window, partitions=partitions, replication=replication)
                for name in made:
                    print(f"made {name}")
            found = problems(connection, topics, settings.kafka_window_seconds)
    except KafkaError as error:
        servers = ",".join(settings.kafka_bootstrap)
        print(f"otel-memory topics: {servers}: {refusal.explain(error)}", file=sys.stderr)
        return 2
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print("the topics are as they should be")
    return 1 if found else 0
