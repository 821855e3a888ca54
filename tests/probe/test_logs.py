"""Log enrichment: what a record gets, by which way, and that everything is undone."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import logging.handlers
import pickle
import queue
import threading
import warnings
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from otel_memory import LOG_DEFAULTS, MemoryLogFilter, MemoryTracker, add_memory, enrich_logs, monitor_memory, names
from otel_memory.probe import logs
from otel_memory.probe.config import Settings
from otel_memory.probe.lifecycle import Probe
from tests.probe.fake_resident import pretend

MIB = 1024 * 1024
FIELDS = ["otel_memory_rss", "otel_memory_change", "otel_memory_operation", "otel_memory_trace_id"]


class Memory:
    rss: int | None = 100 * MIB


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    fake = Memory()
    monkeypatch.setattr(logs, "_read_rss", lambda: fake.rss)
    pretend(monkeypatch, lambda: fake.rss)
    return fake


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    factory = logging.getLogRecordFactory()
    failures = logs.log_enrichment_failures()
    yield
    enrich_logs(False)
    assert logging.getLogRecordFactory() is factory
    assert logs._restore == []
    assert logs.log_enrichment_failures() == failures


class Seen(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self) -> list[tuple[Any, ...]]:
        return [tuple(getattr(record, name, "-") for name in FIELDS[:3]) for record in self.records]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.shop")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate = True


@pytest.fixture
def seen(logger: logging.Logger) -> Seen:
    handler = Seen()
    logger.addHandler(handler)
    return handler


def test_off_by_default(logger: logging.Logger, seen: Seen) -> None:
    logger.info("hello")
    assert seen.fields() == [("-", "-", "-")]


def test_memory_without_an_operation(memory: Memory, logger: logging.Logger, seen: Seen) -> None:
    enrich_logs()
    logger.info("hello")
    assert seen.fields() == [(100 * MIB, None, None)]
    assert vars(seen.records[0])["otel_memory_trace_id"] is None


def test_change_is_since_the_operation_began_however_often_one_logs(
    memory: Memory, logger: logging.Logger, seen: Seen
) -> None:
    enrich_logs()
    assert memory.rss is not None
    with MemoryTracker("order"):
        memory.rss += 3 * MIB
        logger.info("first")
        logger.info("second")
        with MemoryTracker("inner"):
            memory.rss += MIB
            logger.info("inner")
        logger.info("third")
    logger.info("after")
    changes = [(change, operation) for _, change, operation in seen.fields()]
    assert changes == [(3 * MIB, "order"), (3 * MIB, "order"), (MIB, "inner"), (4 * MIB, "order"), (None, None)]


def test_a_coroutines_change_is_what_its_own_steps_did(memory: Memory, logger: logging.Logger, seen: Seen) -> None:
    enrich_logs()

    def grow(bytes: int) -> None:
        assert memory.rss is not None
        memory.rss += bytes

    @monitor_memory(name="mine")
    async def mine() -> None:
        grow(MIB)
        await asyncio.sleep(0)
        logger.info("mine")

    async def other() -> None:
        grow(50 * MIB)
        logger.info("other")

    async def both() -> None:
        await asyncio.gather(mine(), other())

    asyncio.run(both())
    assert [fields[1:] for fields in seen.fields()] == [(None, None), (MIB, "mine")]


def test_a_reading_that_failed_is_none(memory: Memory, logger: logging.Logger, seen: Seen) -> None:
    enrich_logs()
    memory.rss = None
    with MemoryTracker("order"):
        logger.info("hello")
    assert seen.fields() == [(None, None, "order")]


def test_the_trace_id_is_the_current_spans(logger: logging.Logger, seen: Seen) -> None:
    enrich_logs()
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("s") as span:
        logger.info("hello")
    assert vars(seen.records[0])["otel_memory_trace_id"] == format(span.get_span_context().trace_id, "032x")


# --- formatters --------------------------------------------------------------------------------------------------


def test_every_style_of_format_may_name_the_fields(memory: Memory, logger: logging.Logger) -> None:
    enrich_logs()
    forms: list[tuple[Any, str]] = [
        ("%", "%(message)s rss=%(otel_memory_rss)d"),
        ("{", "{message} rss={otel_memory_rss}"),
        ("$", "${message} rss=${otel_memory_rss}"),
    ]
    streams = []
    for style, form in forms:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(form, style=style))
        logger.addHandler(handler)
        streams.append(stream)
    logger.info("hello %s", "you")
    assert [stream.getvalue() for stream in streams] == [f"hello you rss={100 * MIB}\n"] * 3


def test_a_format_with_defaults_works_without_enrichment(logger: logging.Logger) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    form = "%(message)s %(otel_memory_rss)s %(otel_memory_change)s %(otel_memory_operation)s %(otel_memory_trace_id)s"
    handler.setFormatter(logging.Formatter(form, defaults=LOG_DEFAULTS))
    logger.addHandler(handler)
    logger.info("off")
    assert stream.getvalue() == "off None None None None\n"
    assert list(LOG_DEFAULTS) == FIELDS


def test_a_json_formatter_gets_numbers(memory: Memory, logger: logging.Logger) -> None:
    from pythonjsonlogger.json import JsonFormatter

    enrich_logs()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("%(message)s %(levelname)s"))
    logger.addHandler(handler)
    with MemoryTracker("order"):
        logger.info("hello", extra={"order": 7})
    assert json.loads(stream.getvalue()) == {
        "message": "hello",
        "levelname": "INFO",
        "order": 7,
        "otel_memory_rss": 100 * MIB,
        "otel_memory_change": 0,
        "otel_memory_operation": "order",
        "otel_memory_trace_id": None,
    }


def test_records_survive_queues_and_pickles(memory: Memory, logger: logging.Logger, seen: Seen) -> None:
    enrich_logs()
    waiting: queue.Queue[logging.LogRecord] = queue.Queue()
    logger.addHandler(logging.handlers.QueueHandler(waiting))
    with MemoryTracker("order"):
        logger.info("hello %s", "you")
    queued = pickle.loads(pickle.dumps(waiting.get_nowait()))
    assert (queued.getMessage(), queued.otel_memory_operation) == ("hello you", "order")


def test_a_record_from_another_process_keeps_its_own_fields(memory: Memory) -> None:
    enrich_logs()
    record = logging.makeLogRecord({"msg": "from a worker", "otel_memory_rss": 7, "otel_memory_change": 1})
    assert vars(record)["otel_memory_rss"] == 7
    assert vars(record)["otel_memory_change"] == 1


# --- the factory -------------------------------------------------------------------------------------------------


def test_the_applications_own_factory_is_called_and_left_in_place(logger: logging.Logger, seen: Seen) -> None:
    before = logging.getLogRecordFactory()

    class OwnRecord(logging.LogRecord):
        own = True

    logging.setLogRecordFactory(OwnRecord)
    try:
        enrich_logs()
        enrich_logs()
        logger.info("hello")
        assert isinstance(seen.records[0], OwnRecord)
        assert hasattr(seen.records[0], "otel_memory_rss")
        enrich_logs(False)
        enrich_logs(False)
        assert logging.getLogRecordFactory() is OwnRecord
    finally:
        logging.setLogRecordFactory(before)


def test_a_factory_that_was_chained_later_stays_and_ours_passes_through(logger: logging.Logger, seen: Seen) -> None:
    before = logging.getLogRecordFactory()
    enrich_logs()
    ours = logging.getLogRecordFactory()

    def later(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = ours(*args, **kwargs)
        record.later = True
        return record

    logging.setLogRecordFactory(later)
    try:
        enrich_logs(False)
        assert logging.getLogRecordFactory() is later
        logger.info("off")
        enrich_logs()
        logger.info("on")
        enrich_logs(False)
        assert logging.getLogRecordFactory() is later
    finally:
        logging.setLogRecordFactory(before)
    assert [hasattr(record, "otel_memory_rss") for record in seen.records] == [False, True]
    assert all(vars(record)["later"] for record in seen.records)


def test_what_goes_wrong_costs_the_fields_and_not_the_record(
    logger: logging.Logger, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> int:
        raise OSError("no /proc")

    before = logs.log_enrichment_failures()
    monkeypatch.setattr(logs, "_read_rss", broken)
    enrich_logs()
    logger.info("hello")
    assert MemoryLogFilter().filter(seen.records[0]) is True
    assert add_memory(None, "info", {"event": "hello"}) == {"event": "hello"}
    assert seen.fields() == [("-", "-", "-")]
    assert logs.log_enrichment_failures() == before + 3
    logs._Failures.count = before


def test_a_filter_enriches_one_handler_also_from_a_configuration(memory: Memory) -> None:
    stream = io.StringIO()
    name = "tests.configured"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "incremental": False,
            "filters": {"memory": {"()": "otel_memory.MemoryLogFilter"}},
            "formatters": {"plain": {"format": "%(message)s %(otel_memory_rss)s"}},
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": stream,
                    "formatter": "plain",
                    "filters": ["memory"],
                }
            },
            "loggers": {name: {"handlers": ["out"], "level": "INFO", "propagate": False}},
        }
    )
    logging.getLogger(name).info("hello")
    logging.getLogger(name).handlers.clear()
    assert stream.getvalue() == f"hello {100 * MIB}\n"


def test_the_setting_and_the_hand_do_not_undo_each_other(logger: logging.Logger, seen: Seen) -> None:
    probe = Probe(Settings.load({"OTEL_PYTHON_MEMORY_LOG_ENRICHMENT": "true"}))
    probe.start()
    try:
        logger.info("by the setting")
        enrich_logs()
        enrich_logs(False)
        logger.info("still")
        enrich_logs()
    finally:
        probe.stop()
    logger.info("by hand")
    enrich_logs(False)
    logger.info("off")
    assert [hasattr(record, "otel_memory_rss") for record in seen.records] == [True, True, True, False]


def test_threads_log_while_it_is_switched(logger: logging.Logger, seen: Seen) -> None:
    done = threading.Event()

    def chatter() -> None:
        while not done.is_set():
            logger.info("x")

    others = [threading.Thread(target=chatter) for _ in range(3)]
    for other in others:
        other.start()
    for _ in range(50):
        enrich_logs()
        enrich_logs(False)
    done.set()
    for other in others:
        other.join()
    assert all(len(vars(record).keys() & set(FIELDS)) in (0, 4) for record in seen.records)


# --- structlog ---------------------------------------------------------------------------------------------------


def test_structlog_gets_what_is_known(memory: Memory) -> None:
    import structlog

    stream = io.StringIO()
    processors: list[Any] = [structlog.processors.add_log_level, add_memory, structlog.processors.JSONRenderer()]
    log = structlog.wrap_logger(structlog.PrintLogger(stream), processors=processors)
    log.info("alone")
    with MemoryTracker("order"):
        memory.rss = 101 * MIB
        log.info("inside", otel_memory_operation="mine")
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"event": "alone", "level": "info", "otel_memory_rss": 100 * MIB},
        {
            "event": "inside",
            "level": "info",
            "otel_memory_rss": 101 * MIB,
            "otel_memory_change": MIB,
            "otel_memory_operation": "mine",
        },
    ]


# --- OTLP --------------------------------------------------------------------------------------------------------


def contrib_handler(provider: LoggerProvider) -> logging.Handler:
    from opentelemetry.instrumentation.logging.handler import LoggingHandler

    return LoggingHandler(logger_provider=provider)


def sdk_handler(provider: LoggerProvider) -> logging.Handler:
    from opentelemetry.sdk._logs import LoggingHandler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return LoggingHandler(logger_provider=provider)


@pytest.fixture(params=[contrib_handler, sdk_handler])
def exported(request: pytest.FixtureRequest, logger: logging.Logger) -> Generator[InMemoryLogRecordExporter]:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger.addHandler(request.param(provider))
    yield exporter
    provider.shutdown()


def test_otlp_records_have_attributes_and_others_keep_the_fields(
    memory: Memory, logger: logging.Logger, exported: InMemoryLogRecordExporter, seen: Seen
) -> None:
    enrich_logs()
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("s") as span, MemoryTracker("order"):
        memory.rss = 99 * MIB
        logger.info("hello %s", "you", extra={"order": 7})
    logger.info("outside")
    inside, outside = (each.log_record for each in exported.get_finished_logs())
    assert inside.body == "hello you"
    assert inside.trace_id == span.get_span_context().trace_id
    own = {name: value for name, value in (inside.attributes or {}).items() if not name.startswith("code.")}
    assert own == {
        "order": 7,
        names.LOG_MEMORY_USAGE: 99 * MIB,
        names.LOG_MEMORY_DELTA: -MIB,
        names.OPERATION_NAME: "order",
    }
    own = {name: value for name, value in (outside.attributes or {}).items() if not name.startswith("code.")}
    assert own == {names.LOG_MEMORY_USAGE: 99 * MIB}
    assert seen.fields() == [(99 * MIB, -MIB, "order"), (99 * MIB, None, None)]
    exported.clear()
    enrich_logs(False)
    logger.info("off")
    assert not any(
        name.startswith("otel_memory") for name in exported.get_finished_logs()[0].log_record.attributes or {}
    )


def test_exceptions_arrive_whole(logger: logging.Logger, exported: InMemoryLogRecordExporter) -> None:
    enrich_logs()
    try:
        raise KeyError("missing")
    except KeyError:
        logger.exception("failed")
    attributes = exported.get_finished_logs()[0].log_record.attributes or {}
    assert attributes["exception.type"] == "KeyError"
    assert names.LOG_MEMORY_USAGE in attributes


def test_the_handlers_are_as_they_were_afterwards() -> None:
    from opentelemetry.instrumentation.logging.handler import LoggingHandler as Contrib
    from opentelemetry.sdk._logs import LoggingHandler as Sdk

    before = Contrib.emit, Sdk.emit
    enrich_logs()
    assert (Contrib.emit, Sdk.emit) != before
    enrich_logs(False)
    assert (Contrib.emit, Sdk.emit) == before
