"""The environment variables of the probe, one constant each, for the launcher's ``--help`` and flags.

Made from ``config.py`` by ``python -m tests.generate_docs``. The launcher makes a command-line flag of
every ``OTEL_*`` name in this module and fails to start when another package defines the same name. So only
names with our own prefix may ever stand here.
"""

OTEL_PYTHON_MEMORY_INTERVAL = "OTEL_PYTHON_MEMORY_INTERVAL"
"""Time between two readings, in milliseconds or with a unit (``500ms``, ``2s``). Default: 1000."""

OTEL_PYTHON_MEMORY_SLOW_INTERVAL = "OTEL_PYTHON_MEMORY_SLOW_INTERVAL"
"""Time between two readings of what is dear to read (shared and private memory, open descriptors). Default:
30000."""

OTEL_PYTHON_MEMORY_LIMIT = "OTEL_PYTHON_MEMORY_LIMIT"
"""Budget of the process in bytes or with a unit (``512MiB``); the narrowest of it, the container's, the
resource limit and the host's memory counts. Default: none."""

OTEL_PYTHON_MEMORY_THRESHOLDS = "OTEL_PYTHON_MEMORY_THRESHOLDS"
"""Threshold rules, see below; ``none`` switches the built-in ones off. Default: the built-in rules."""

OTEL_PYTHON_MEMORY_THRESHOLDS_FILE = "OTEL_PYTHON_MEMORY_THRESHOLDS_FILE"
"""File of threshold rules, one a line, ``#`` begins a comment; a rule of ``THRESHOLDS`` takes the place of
one that bears its name here. Default: none."""

OTEL_PYTHON_MEMORY_EVENTS = "OTEL_PYTHON_MEMORY_EVENTS"
"""Where events go: ``otlp`` (the application's logger provider), ``kafka``, ``file`` (JSON lines),
``console`` (one line of JSON each to standard error), several with commas; or ``none``. Default: otlp."""

OTEL_PYTHON_MEMORY_PRESSURE_LEVELS = "OTEL_PYTHON_MEMORY_PRESSURE_LEVELS"
"""Shares of the limit from which the pressure level is medium, high, critical. Default: 0.7,0.85,0.95."""

OTEL_PYTHON_MEMORY_OPERATION_LOG = "OTEL_PYTHON_MEMORY_OPERATION_LOG"
"""One log line for every call of a decorated operation, at level INFO. Default: false."""

OTEL_PYTHON_MEMORY_CLEANUP = "OTEL_PYTHON_MEMORY_CLEANUP"
"""When memory is cleaned up by itself: ``periodic`` (gently), ``critical`` (aggressively, when a critical
threshold about memory is crossed), both with a comma, or ``none``. Default: none."""

OTEL_PYTHON_MEMORY_CLEANUP_INTERVAL = "OTEL_PYTHON_MEMORY_CLEANUP_INTERVAL"
"""Time between two periodic cleanups. Default: 600000."""

OTEL_PYTHON_MEMORY_FILE_PATH = "OTEL_PYTHON_MEMORY_FILE_PATH"
"""File of the exporters ``otlp_file`` and of the events' sink ``file``; a folder takes the default name;
``{signal}`` (``metrics``, ``logs``, ``traces``, ``events``; put before the suffix where it is left out) and
``{pid}`` are replaced. Default: otel-memory-{signal}.jsonl."""

OTEL_PYTHON_MEMORY_FILE_MAX_BYTES = "OTEL_PYTHON_MEMORY_FILE_MAX_BYTES"
"""Size of such a file from which it is rotated. Default: 10MiB."""

OTEL_PYTHON_MEMORY_FILE_KEEP = "OTEL_PYTHON_MEMORY_FILE_KEEP"
"""Rotated files kept beside the current one. Default: 5."""

OTEL_PYTHON_MEMORY_KAFKA_BOOTSTRAP_SERVERS = "OTEL_PYTHON_MEMORY_KAFKA_BOOTSTRAP_SERVERS"
"""Kafka's brokers as ``host:port``, several with commas, for the exporters ``otlp_kafka`` and the events'
sink ``kafka``. Default: localhost:9092."""

OTEL_PYTHON_MEMORY_KAFKA_SECURITY_PROTOCOL = "OTEL_PYTHON_MEMORY_KAFKA_SECURITY_PROTOCOL"
"""``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``. Default: PLAINTEXT."""

OTEL_PYTHON_MEMORY_KAFKA_SASL_MECHANISM = "OTEL_PYTHON_MEMORY_KAFKA_SASL_MECHANISM"
"""``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``. Default: PLAIN."""

OTEL_PYTHON_MEMORY_KAFKA_SASL_USERNAME = "OTEL_PYTHON_MEMORY_KAFKA_SASL_USERNAME"
"""Login at the brokers, with a protocol that has one. Default: none."""

OTEL_PYTHON_MEMORY_KAFKA_SASL_PASSWORD = "OTEL_PYTHON_MEMORY_KAFKA_SASL_PASSWORD"
"""Password of that login. Default: none."""

OTEL_PYTHON_MEMORY_KAFKA_SSL_CAFILE = "OTEL_PYTHON_MEMORY_KAFKA_SSL_CAFILE"
"""File of the authority that signed the brokers' certificates, in PEM form; else the system's. Default:
none."""

OTEL_PYTHON_MEMORY_KAFKA_SSL_CERTFILE = "OTEL_PYTHON_MEMORY_KAFKA_SSL_CERTFILE"
"""Certificate of this client, in PEM form. Default: none."""

OTEL_PYTHON_MEMORY_KAFKA_SSL_KEYFILE = "OTEL_PYTHON_MEMORY_KAFKA_SSL_KEYFILE"
"""Its private key, in PEM form. Default: none."""

OTEL_PYTHON_MEMORY_KAFKA_METRICS_TOPIC = "OTEL_PYTHON_MEMORY_KAFKA_METRICS_TOPIC"
"""Topic of metrics. Default: otlp_metrics."""

OTEL_PYTHON_MEMORY_KAFKA_LOGS_TOPIC = "OTEL_PYTHON_MEMORY_KAFKA_LOGS_TOPIC"
"""Topic of log records and events. Default: otlp_logs."""

OTEL_PYTHON_MEMORY_KAFKA_COMPRESSION = "OTEL_PYTHON_MEMORY_KAFKA_COMPRESSION"
"""Of what is sent: ``none``, ``gzip``, ``lz4`` or ``zstd``. Default: zstd."""

OTEL_PYTHON_MEMORY_KAFKA_MAX_BUFFER_BYTES = "OTEL_PYTHON_MEMORY_KAFKA_MAX_BUFFER_BYTES"
"""What may wait in memory for Kafka; past it the oldest metrics go first, and events last. Default: 16MiB."""

OTEL_PYTHON_MEMORY_KAFKA_MAX_RECORD_BYTES = "OTEL_PYTHON_MEMORY_KAFKA_MAX_RECORD_BYTES"
"""Size above which what is sent is split into several records; at most the topic's ``max.message.bytes``.
Default: 900000."""

OTEL_PYTHON_MEMORY_KAFKA_SPOOL_PATH = "OTEL_PYTHON_MEMORY_KAFKA_SPOOL_PATH"
"""Folder in which what waits for Kafka is kept instead, so that it outlives the process; several processes
share it. Default: none."""

OTEL_PYTHON_MEMORY_KAFKA_SPOOL_MAX_BYTES = "OTEL_PYTHON_MEMORY_KAFKA_SPOOL_MAX_BYTES"
"""What one process keeps there at most; past it the newest is dropped, events last. Default: 64MiB."""

OTEL_PYTHON_MEMORY_KAFKA_FLUSH_TIMEOUT = "OTEL_PYTHON_MEMORY_KAFKA_FLUSH_TIMEOUT"
"""How long the end of the application waits for Kafka to take the rest, in milliseconds. Default: 5000."""

OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC = "OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC"
"""When a diagnostic garbage collection runs by itself: a time between two (``10min``), ``growth`` (when a
threshold rule about the growth of memory is crossed), or ``none``. Default: none."""

OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC_FILE = "OTEL_PYTHON_MEMORY_DIAGNOSTIC_GC_FILE"
"""File to which every diagnostic run, also one called by hand, appends a line of JSON; at 4 MiB it becomes
``<name>.1``. Default: none."""

OTEL_PYTHON_MEMORY_OPERATIONS = "OTEL_PYTHON_MEMORY_OPERATIONS"
"""Functions to measure without touching the code, from when their modules are imported:
``package.module:function``, ``package.module:Class.method``, ``package.module:Class.*``,
``package.module:*``. Default: none."""

OTEL_PYTHON_MEMORY_LIVE_OBJECTS = "OTEL_PYTHON_MEMORY_LIVE_OBJECTS"
"""Classes whose instances are counted: ``package.module:Class``, with commas between them. Default: none."""

OTEL_PYTHON_MEMORY_GPU = "OTEL_PYTHON_MEMORY_GPU"
"""Memory of graphics processors: ``auto`` (where the application has loaded torch), ``true`` (by the driver,
torch or not), ``false``. Default: auto."""

OTEL_PYTHON_MEMORY_SNAPSHOT_INTERVAL = "OTEL_PYTHON_MEMORY_SNAPSHOT_INTERVAL"
"""Time between two snapshots; no shorter than the interval. Default: 30000."""

OTEL_PYTHON_MEMORY_SNAPSHOTS = "OTEL_PYTHON_MEMORY_SNAPSHOTS"
"""Snapshots that are kept (2880 at 30 s are a day, in 144 kB); ``0`` or ``none`` takes none. Default:
2880."""

OTEL_PYTHON_MEMORY_SNAPSHOT_EVENTS = "OTEL_PYTHON_MEMORY_SNAPSHOT_EVENTS"
"""One event ``otel_memory.snapshot`` for each snapshot. Default: false."""

OTEL_PYTHON_MEMORY_LOG_ENRICHMENT = "OTEL_PYTHON_MEMORY_LOG_ENRICHMENT"
"""Memory, change, operation and trace id on the records of the application's loggers. Default: false."""

OTEL_PYTHON_MEMORY_PACKAGES = "OTEL_PYTHON_MEMORY_PACKAGES"
"""What each import costs from here on, and live bytes by package while tracemalloc is on. Default: false."""

OTEL_PYTHON_MEMORY_PACKAGES_INTERVAL = "OTEL_PYTHON_MEMORY_PACKAGES_INTERVAL"
"""Time between two measurements of all packages. Default: 30000."""

OTEL_PYTHON_MEMORY_PACKAGES_LIVE_BLOCKS = "OTEL_PYTHON_MEMORY_PACKAGES_LIVE_BLOCKS"
"""Traced blocks above which live bytes by package are not measured (a snapshot stops the program 0.25 µs
each). Default: 300000."""

OTEL_PYTHON_MEMORY_EVIDENCE = "OTEL_PYTHON_MEMORY_EVIDENCE"
"""What is done to find out what grows, once memory has been growing for a while: ``census`` (count objects by
type, find who holds the growing containers), ``burst`` (tracemalloc for a moment), or ``none``. Default:
census,burst."""

OTEL_PYTHON_MEMORY_EVIDENCE_WINDOW = "OTEL_PYTHON_MEMORY_EVIDENCE_WINDOW"
"""For how long the floor of memory must have risen before evidence is looked for. Default: 45000."""

OTEL_PYTHON_MEMORY_EVIDENCE_SHARE = "OTEL_PYTHON_MEMORY_EVIDENCE_SHARE"
"""Share of the time that tracemalloc may be on while memory grows. Default: 1%."""

OTEL_PYTHON_MEMORY_EVIDENCE_BURST = "OTEL_PYTHON_MEMORY_EVIDENCE_BURST"
"""For how long one burst traces with tracemalloc, all its pieces of a fifth of a second together; between
them the program has four times as long to itself. Default: 1000."""

OTEL_PYTHON_MEMORY_EVIDENCE_FRAMES = "OTEL_PYTHON_MEMORY_EVIDENCE_FRAMES"
"""Frames of a traceback that a burst keeps, to find the program's own line below a library's; more cost more.
Where a piece of a burst saw only a library's lines, the next ones keep 12. Default: 2."""

OTEL_PYTHON_MEMORY_EVIDENCE_MAX_PAUSE = "OTEL_PYTHON_MEMORY_EVIDENCE_MAX_PAUSE"
"""Longest time that one look may hold the interpreter; a process too large for it is not counted, and says
so. Default: 50."""

OTEL_PYTHON_MEMORY_HTTP = "OTEL_PYTHON_MEMORY_HTTP"
"""Serve the endpoints of this process (``/internal/memory/…``, ``/api/packages/memory/…``) on an address of
its own; needs the extra ``http``. Default: false."""

OTEL_PYTHON_MEMORY_HTTP_HOST = "OTEL_PYTHON_MEMORY_HTTP_HOST"
"""Address that the endpoints listen on; any but a loopback one demands a token. Default: 127.0.0.1."""

OTEL_PYTHON_MEMORY_HTTP_PORT = "OTEL_PYTHON_MEMORY_HTTP_PORT"
"""Port of the endpoints; where it is taken (by another worker), the next free one; ``0`` is any free one.
Default: 8432."""

OTEL_PYTHON_MEMORY_HTTP_TOKEN = "OTEL_PYTHON_MEMORY_HTTP_TOKEN"
"""Token that every request has to carry: ``Authorization: Bearer TOKEN``. Default: none."""
