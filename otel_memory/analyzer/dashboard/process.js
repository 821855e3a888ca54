// Owns the view of one process: the sentence, the figures, the chart with its range, who is suspected and why, what
// happened. It asks for what the table doesn't carry and lets the stream keep the rest current.

import { ABSENT, bytes, clock, duration, growth, interval, percent, seconds } from "./format.js";
import { append, chartModel, floorWindow, perSecond } from "./chart_model.js";
import { headline, instanceOf, limitKindWords, nameOf } from "./judge.js";
import { eventsOf } from "./events.js";
import { Breakdown, Events, Evidence, Facts, Reasons, Suggestions, Suspects } from "./process_parts.js";
import { Component, Failure, Figure, Notice, Verdict, html } from "./ui.js";

const RANGES = [
  { name: "15 min", seconds: 900 },
  { name: "1 h", seconds: 3600 },
  { name: "6 h", seconds: 21_600 },
  { name: "24 h", seconds: 86_400 },
];
const LONGEST_UNASKED = 2; // a day flattens what began this morning
const POINTS = 600;
const SIDE_POINTS = 150;
const SIDE_METRICS = [
  { metric: "blocks", name: "Python memory blocks" },
  { metric: "heap", name: "Heap in use by the C allocator" },
  { metric: "requests", name: "Requests per second", counted: true },
];
const REFRESH_MS = 30_000;
const TABLE_ROWS = 24;

let rangeChosen = null; // the next process opens with the range that was chosen for the last one
let chartModule = null;

/** uPlot asks Intl for navigator.language while it loads, and some headless browsers name a locale that Intl refuses. */
function loadCharts() {
  try {
    new Intl.NumberFormat(navigator.language);
  } catch {
    Object.defineProperty(navigator, "language", { value: "en-US", configurable: true });
  }
  chartModule ??= import("./chart.js");
  return chartModule;
}

/** The figures under the pointer, else the latest. It alone redraws when the pointer moves. */
class Readout extends Component {
  componentDidMount() {
    this.props.attach(this); // Preact 11 hands a ref to a component on as a mere property
  }

  point(at) {
    const before = this.state.at;
    if (at?.index !== before?.index || at?.marker !== before?.marker) this.setState({ at });
  }

  render({ model, now }, { at }) {
    const index = at && at.index < model.x.length ? at.index : model.lastIndex;
    const of = (name) => model.columns[name][index];
    const time = model.x[index];
    return html`<p class="readout">
      <span class="time">${time === undefined ? ABSENT : at ? `${clock(time, now)}:${String(new Date(time * 1000).getSeconds()).padStart(2, "0")}` : "Latest"}</span>
      <span class="key k-memory">Memory <b>${bytes(of("memory"))}</b></span>
      <span class="key k-floor">${model.floorMeasured ? "Floor after collection" : "Floor (rolling minimum)"} <b>${bytes(of("floor"))}</b></span>
      ${at && typeof of("forecast") === "number" && of("memory") === null && html`<span class="key k-forecast">Forecast <b>${bytes(of("forecast"))}</b></span>`}
      ${at?.marker && html`<span class="key k-marker">${at.marker.text}</span>`}
    </p>`;
  }
}

export class Process extends Component {
  constructor(props) {
    super(props);
    this.state = { detail: null, error: null, range: rangeChosen ?? RANGES[0], zoom: false, memory: null, floor: null, sides: null, charts: null };
    this.modelFrom = [];
  }

  componentDidMount() {
    this.abort = new AbortController();
    loadCharts().then((charts) => this.setState({ charts }), () => this.setState({ charts: "failed" }));
    this.refresh();
    this.timer = setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    this.undo = this.props.store.onProcess((process) => process.id === this.props.id && this.live(process));
  }

  componentWillUnmount() {
    this.abort.abort();
    clearInterval(this.timer);
    this.undo();
  }

  componentDidUpdate() {
    const { phase, connection } = this.props.store;
    const live = phase === "ready" && connection.state === "live";
    if (live && this.wasLive === false) this.refresh();
    this.wasLive = live;
  }

  /** The end of the range: now, or for a process that has gone silent the last that it said. */
  end(process) {
    const last = seconds(process?.last_seen);
    const { store } = this.props;
    return last !== null && process && store.silence(process) !== null ? last : store.now;
  }

  /** The chart's model; the same object while nothing in it changed, so that the chart isn't drawn again. */
  model(process) {
    const { memory, floor, range, zoom } = this.state;
    if (!memory) return null;
    const step = range.seconds / POINTS;
    const to = Math.ceil(this.end(process) / step) * step;
    const silent = this.props.store.silence(process) !== null;
    const forecast = silent ? null : process.time_to_limit_seconds;
    const from = [memory, floor, process.limit_bytes, forecast?.estimate, forecast?.low, forecast?.high, to, zoom];
    if (from.some((part, index) => part !== this.modelFrom[index])) {
      this.modelFrom = from;
      this.modelKept = chartModel({ memory, floor, limit: process.limit_bytes, forecast, from: to - range.seconds, to, zoom });
    }
    return this.modelKept;
  }

  /** Where nobody chose: the shortest range that shows the whole life of the process, up to six hours of it. */
  settle(detail) {
    const age = this.props.api.now() - (seconds(detail.first_seen) ?? this.props.api.now());
    const range = RANGES.slice(0, LONGEST_UNASKED).find((each) => each.seconds >= age) ?? RANGES[LONGEST_UNASKED];
    this.setState({ range });
    return range;
  }

  async refresh() {
    const { api, id } = this.props;
    let { range } = this.state;
    const options = { signal: this.abort.signal };
    try {
      const detail = await api.process(id, options);
      if (!this.state.detail && !rangeChosen) range = this.settle(detail);
      const to = this.end(detail);
      const ask = (metric, points) => api.series(id, { metric, from: to - range.seconds, to, points }, options);
      // A metric that this process doesn't send is no failure of the page.
      const maybe = (metric, points) => ask(metric, points).catch((error) => {
        if (error.name === "AbortError") throw error;
        return null;
      });
      const [memory, floor] = await Promise.all([ask("memory", POINTS), maybe("floor", POINTS)]);
      if (range !== this.state.range) return;
      this.setState({ detail, memory, floor, error: null });
      const sides = await Promise.all(SIDE_METRICS.map(async ({ metric, counted }) => {
        const series = await maybe(metric, SIDE_POINTS);
        return counted && series ? perSecond(series) : series;
      }));
      if (range !== this.state.range) return;
      this.setState({ sides });
    } catch (error) {
      if (error.name !== "AbortError") this.setState({ error });
    }
  }

  live(process) {
    const time = seconds(process.last_seen);
    this.setState(({ memory, range }) => ({
      memory: memory && time !== null && typeof process.memory_bytes === "number"
        ? append(memory, time, process.memory_bytes, time - range.seconds) : memory,
    }));
    if (this.state.detail && process.verdict !== this.state.detail.verdict) this.refresh();
  }

  show(range) {
    rangeChosen = range;
    this.setState({ range }, () => this.refresh());
  }

  /** What is known: the detail, and over it what the stream brought since. */
  current() {
    const live = this.props.store.processes.get(this.props.id);
    const { detail } = this.state;
    if (!detail) return live ?? null;
    return live && seconds(live.last_seen) >= seconds(detail.last_seen) ? { ...detail, ...live } : detail;
  }

  chartLabel(model, process) {
    const first = model.columns.memory.find((value) => value !== null);
    const last = model.columns.memory[model.lastIndex];
    if (last === undefined) return "Memory: no readings in this range";
    const limit = process.limit_bytes ? `; limit ${bytes(process.limit_bytes)}` : "";
    const forecast = process.time_to_limit_seconds ? `; forecast to reach it in ${duration(process.time_to_limit_seconds.estimate)}` : "";
    return `Memory in the last ${this.state.range.name}: from ${bytes(first)} to ${bytes(last)}${limit}${forecast}`;
  }

  chart(process, events) {
    const { range, zoom, charts } = this.state;
    const { store } = this.props;
    const silent = store.silence(process) !== null;
    const model = this.model(process);
    const markers = events.filter((event) => model && event.time >= model.from && event.time <= model.to);
    return html`<section class="panel chart" aria-label="Memory over time">
      <div class="chart-head">
        <h2>Memory</h2>
        <div class="choices" role="group" aria-label="Time range">
          ${RANGES.map((each) => html`<button type="button" key=${each.name} aria-pressed=${String(each === range)} onClick=${() => this.show(each)}>${each.name}</button>`)}
        </div>
        <div class="choices" role="group" aria-label="Vertical scale">
          <button type="button" aria-pressed=${String(!zoom)} onClick=${() => this.setState({ zoom: false })}>From zero</button>
          <button type="button" aria-pressed=${String(zoom)} onClick=${() => this.setState({ zoom: true })}>Zoom</button>
        </div>
      </div>
      <div class="plot-box">
        ${charts === "failed" ? html`<p class="muted">The chart could not be loaded; the figures are below.</p>`
          : model && charts ? html`<${charts.MemoryChart} kind="tall" model=${model} markers=${markers} label=${this.chartLabel(model, process)}
              onHover=${(at) => this.readout?.point(at)} />` : null}
        ${model && model.lastIndex < 0 && html`<p class="over muted">No readings in this range. Last seen ${clock(process.last_seen, store.now)}.</p>`}
      </div>
      ${model ? html`<${Readout} attach=${(readout) => { this.readout = readout; }} model=${model} now=${store.now} />` : html`<p class="readout">${"\u00a0"}</p>`}
      <p class="legend muted">
        ${process.limit_bytes && html`<span class="key k-limit">Limit ${bytes(process.limit_bytes)}${model && !model.limitInView ? " (above the chart)" : ""}</span>`}
        ${model && process.time_to_limit_seconds && !silent && html`<span class="key k-forecast">Forecast, with its 80 % interval</span>`}
        ${markers.length > 0 && html`<span class="key k-marker">Event</span>`}
        ${model && !model.floorMeasured && html`<span>Floor: lowest of the last ${duration(floorWindow(range.seconds))}</span>`}
        ${silent && html`<span>Ends at ${clock(process.last_seen, store.now)}, when data stopped</span>`}
      </p>
      ${this.table(model)}
      ${this.sides(model)}
    </section>`;
  }

  /** The other metrics under the same time axis. Their place is kept until it is known which there are. */
  sides(model) {
    const { sides, charts, range } = this.state;
    if (charts === "failed") return null;
    if (!sides || !charts || !model) return html`<div class="sides expected"></div>`;
    const known = SIDE_METRICS.map((metric, index) => ({ ...metric, series: sides[index] }))
      .filter(({ series }) => series && series.values.filter((value) => value !== null).length > 1);
    return html`<div class="sides">${known.map(({ metric, name, series }) => html`<figure key=${metric}>
      <figcaption>${name}${/^[^{B]/.test(series.unit ?? "") ? html` <span class="muted">${series.unit}</span>` : ""}</figcaption>
      <${charts.SideChart} kind="short" series=${series} from=${model.from} to=${model.to} label=${`${name} in the last ${range.name}`} /></figure>`)}</div>`;
  }

  table(model) {
    if (!model) return html`<details class="as-table"><summary>The same as a table</summary></details>`;
    const step = Math.max(1, Math.ceil((model.lastIndex + 1) / TABLE_ROWS));
    const rows = [];
    for (let index = model.lastIndex; index >= 0; index -= step) rows.push(index);
    return html`<details class="as-table"><summary>The same as a table</summary>
      <table><thead><tr><th scope="col">Time</th><th scope="col" class="number">Memory</th><th scope="col" class="number">Floor</th></tr></thead>
      <tbody>${rows.map((index) => html`<tr key=${model.x[index]}><td>${clock(model.x[index], this.props.store.now)}</td>
        <td class="number">${bytes(model.columns.memory[index])}</td><td class="number">${bytes(model.columns.floor[index])}</td></tr>`)}</tbody></table></details>`;
  }

  render({ store, id, back }, { error, detail }) {
    const process = this.current();
    const crumbs = html`<p class="crumbs"><a href=${back}>← Fleet</a></p>`;
    if (!process) {
      if (!error) return html`${crumbs}<div class="boot">Loading…</div>`;
      return html`${crumbs}${error.status === 404
        ? html`<${Notice} title="Unknown process"><p>The analyzer knows no process <code>${id}</code>. It may have been forgotten since.</p><//>`
        : html`<${Failure} error=${error} onRetry=${() => this.refresh()} onToken=${(token) => { store.useToken(token); this.refresh(); }} />`}`;
    }
    const forecast = process.time_to_limit_seconds;
    const silence = store.silence(process);
    const alerts = [...store.alerts.values()].filter((alert) => alert.process === id);
    const events = eventsOf(detail?.events ?? [], alerts);
    return html`
      ${crumbs}
      <div class="heading process-heading">
        <h1 tabindex="-1">${nameOf(process)}</h1><${Verdict} verdict=${process.verdict} large />
        <p class="muted instance">${instanceOf(process)}${process.service_version ? ` · version ${process.service_version}` : ""}</p>
      </div>
      <p class=${`headline is-${process.verdict}`}>${headline(process, store.now)}</p>
      ${silence !== null && html`<p class="silent-note" role="status">No data for ${duration(silence)}. The process may have ended, or can't reach the analyzer; what follows is its last known state.</p>`}
      ${error && html`<p class="silent-note" role="status">${error.message} What you see may be out of date.</p>`}
      <dl class="figures">
        <${Figure} name="Memory" note=${process.utilization === null || process.utilization === undefined ? null : `${percent(process.utilization)} of limit`}>${bytes(process.memory_bytes)}<//>
        <${Figure} name="Limit" note=${process.limit_kind ? `set by ${limitKindWords(process.limit_kind)}` : null}>${bytes(process.limit_bytes)}<//>
        <${Figure} name="Growth" note=${process.trend}>${growth(process.growth_bytes_per_second)}<//>
        <${Figure} name="Limit reached in" note=${typeof forecast?.low === "number" ? interval(forecast.low, forecast.high) : process.verdict === "healthy" ? "not in sight" : null}
          title="Estimate and its 80 % interval">${forecast ? duration(forecast.estimate) : ABSENT}<//>
        <${Figure} name="Leak score" note="0 to 1">${typeof process.leak_score === "number" ? process.leak_score.toFixed(2) : ABSENT}<//>
      </dl>
      ${this.chart(process, events)}
      <div class="columns">
        <div>
          <${Suspects} suspects=${process.suspects ?? []} verdict=${process.verdict} />
          <${Suggestions} suggestions=${detail?.suggestions} />
          <${Evidence} findings=${detail?.evidence} now=${store.now} />
          <${Reasons} reasons=${process.reasons ?? []} />
        </div>
        <div>
          <${Events} events=${events} now=${store.now} />
          <${Facts} process=${process} now=${store.now} />
          <${Breakdown} parts=${detail?.breakdown ?? null} total=${process.memory_bytes} />
        </div>
      </div>`;
  }
}

