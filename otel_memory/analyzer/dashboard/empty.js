// Owns what the page says while no process has reported: what to do, as commands to copy.

import { Copyable, html } from "./ui.js";

const INSTALL = "pip install 'otel-memory[otlp]'";
// The page may be open on another machine than the analyzer's: then its address is the page's. The receivers listen on
// IPv4, and "localhost" may mean IPv6 first.
const host = () => (["", "localhost"].includes(location.hostname) ? "127.0.0.1" : location.hostname);
export const runCommand = () =>
  `OTEL_SERVICE_NAME=shop OTEL_EXPORTER_OTLP_ENDPOINT=http://${host()}:4318 OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf ` +
  "OTEL_METRIC_EXPORT_INTERVAL=5000 opentelemetry-instrument python app.py";

export const Empty = ({ connected }) => html`
  <div class="empty">
    <h1 tabindex="-1">No process has reported yet</h1>
    <p class="lead">The analyzer is up and listens for OpenTelemetry. The first row appears here by itself, about five seconds
      after a process starts to send.</p>
    <ol class="steps">
      <li><h2>Install the probe beside your application</h2><${Copyable} text=${INSTALL} label="install command" /></li>
      <li><h2>Start it under OpenTelemetry, with no change to its code</h2><${Copyable} text=${runCommand()} label="start command" />
        <p class="muted">Name it after your service in place of <code>shop</code>; <code>app.py</code> stands for your own program.</p></li>
    </ol>
    <div class="others">
      <section><h2>Just looking?</h2><p>A leaking and a healthy sample, with load:</p><${Copyable} text="otel-memory demo" label="demo command" /></section>
      <section><h2>Should be here already?</h2><p>Checks exporter, endpoint and versions:</p><${Copyable} text="otel-memory doctor" label="doctor command" /></section>
    </div>
    <p class="waiting"><span class=${`dot ${connected ? "live" : ""}`} aria-hidden="true"></span>${connected ? "Waiting for the first report…" : "Connecting…"}</p>
  </div>`;
