// A program under OpenTelemetry's runtime instrumentation: `node app.cjs leak|healthy SECONDS`.
// Both serve the same made-up calls; the leaking one keeps a part of what each one makes.
const { metrics } = require("@opentelemetry/api");
const { OTLPMetricExporter } = require("@opentelemetry/exporter-metrics-otlp-http");
const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { RuntimeNodeInstrumentation } = require("@opentelemetry/instrumentation-runtime-node");
const { detectResources, envDetector, hostDetector, processDetector } = require("@opentelemetry/resources");
const { MeterProvider, PeriodicExportingMetricReader } = require("@opentelemetry/sdk-metrics");

const [mode, seconds] = process.argv.slice(2);
const provider = new MeterProvider({
  resource: detectResources({ detectors: [envDetector, hostDetector, processDetector] }),
  readers: [new PeriodicExportingMetricReader({
    exporter: new OTLPMetricExporter(), exportIntervalMillis: 1000, exportTimeoutMillis: 900,
  })],
});
metrics.setGlobalMeterProvider(provider);
registerInstrumentations({
  instrumentations: [new RuntimeNodeInstrumentation({ monitoringPrecision: 1000 })], meterProvider: provider,
});

const kept = [];
const end = Date.now() + Number(seconds) * 1000;
const timer = setInterval(() => {
  const made = Array.from({ length: 3000 + Math.floor(Math.random() * 3000) }, (_, number) => ({ number }));
  if (mode === "leak") kept.push(made.slice(0, 400).map(({ number }) => ({ number, name: `entry ${number}` })));
  if (Date.now() > end) {
    clearInterval(timer);
    provider.shutdown().finally(() => process.exit(0));
  }
}, 20);
