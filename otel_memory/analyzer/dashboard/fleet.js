// Owns the fleet view: counts, the strip of firing alerts, filter, order, and the table. Order and filter live in the
// address, so that what one sees can be sent to a colleague.

import { ABSENT, bytes, clock, duration, exact, growth, interval, percent } from "./format.js";
import { FIRST_DIRECTION, VERDICTS, VERDICT_WORDS, byAlertUrgency, comparator, instanceOf, matches, nameOf } from "./judge.js";
import { Empty } from "./empty.js";
import { Sparkline } from "./sparkline.js";
import { Bar, Component, Icon, Verdict, html, pressure } from "./ui.js";

const ROWS_AT_FIRST = 100;
const ROWS_MORE = 200;
const ALERTS_IN_STRIP = 3;

const COLUMNS = [
  { key: "severity", name: "Verdict" },
  { key: "service", name: "Service and instance" },
  { key: "memory", name: "Memory", number: true },
  { key: "use", name: "Of limit" },
  { key: null, name: "Last 30 min" },
  { key: "growth", name: "Growth", number: true },
  { key: "limit", name: "Limit in", number: true },
  { key: "suspect", name: "First suspect" },
];

const firstDirection = (key) => FIRST_DIRECTION[key] ?? "desc";

class Row extends Component {
  shouldComponentUpdate(next) {
    return ["process", "curve", "silence"].some((name) => next[name] !== this.props[name]);
  }

  render({ process, curve, silence, sparks }) {
    const suspect = process.suspects?.[0];
    const forecast = process.time_to_limit_seconds;
    const instance = instanceOf(process);
    return html`<tr role="row" class=${`row is-${process.verdict} ${silence ? "silent" : ""}`} data-id=${process.id}>
      <td role="cell" class="c-verdict"><${Verdict} verdict=${process.verdict} /></td>
      <th role="rowheader" scope="row" class="c-service">
        <a class="service" href=${`#/process/${encodeURIComponent(process.id)}`} title=${nameOf(process)}>${nameOf(process)}</a>
        <span class="instance" title=${instance}>${silence
          ? html`<span class="silence">No data for ${silence}</span> · ${instance}` : instance}</span>
      </th>
      <td role="cell" class="c-memory number">
        ${bytes(process.memory_bytes)}<span class="sub">${process.limit_bytes ? `of ${bytes(process.limit_bytes)}` : "no limit"}</span>
      </td>
      <td role="cell" class="c-use">${typeof process.utilization === "number"
        ? html`<span class="use"><${Bar} share=${process.utilization} tone=${pressure(process.utilization)} /><span class="number">${percent(process.utilization)}</span></span>`
        : ABSENT}</td>
      <td role="cell" class="c-spark"><${Sparkline} process=${process} curve=${curve} sparks=${sparks} /></td>
      <td role="cell" class="c-growth number">${growth(process.growth_bytes_per_second)}</td>
      <td role="cell" class="c-limit number" title=${typeof forecast?.low === "number" ? `Estimate; 80 % interval: ${interval(forecast.low, forecast.high)}` : undefined}>
        ${forecast ? html`${duration(forecast.estimate)}${typeof forecast.low === "number" && html`<span class="sub">${interval(forecast.low, forecast.high)}</span>`}` : ABSENT}
      </td>
      <td role="cell" class="c-suspect">${suspect
        ? html`<span class="suspect" title=${suspect.evidence || suspect.name}>${suspect.name}</span><span class="sub">${suspect.kind}</span>` : ABSENT}</td>
    </tr>`;
  }
}

const AlertStrip = ({ alerts, now }) => {
  if (!alerts.length) return null;
  const shown = alerts.slice().sort(byAlertUrgency).slice(0, ALERTS_IN_STRIP);
  return html`<section class="strip" aria-label="Firing alerts">
    <ul>${shown.map((alert) => html`<li key=${alert.id} class=${`severity-${alert.severity}`}>
      <span class="severity">${alert.severity}</span>
      <a href=${`#/process/${encodeURIComponent(alert.process)}`}>${alert.summary}</a>
      <time datetime=${alert.starts_at} title=${exact(alert.starts_at)}>since ${clock(alert.starts_at, now)}</time>
    </li>`)}</ul>
    ${alerts.length > shown.length && html`<a class="more" href="#/alerts">${alerts.length - shown.length} more alerts firing</a>`}
  </section>`;
};

/** `findings`: of services with several instances; those that are one matter for all of them are told. */
const Common = ({ findings, onService }) => {
  const told = findings.filter(({ cause, leaking }) => cause !== "some" && (cause === "one" || leaking.length > 1));
  if (!told.length) return null;
  return html`<section class="strip common" aria-label="What instances have in common">
    <ul>${told.map((one) => html`<li key=${one.service_name}>
      <span class="severity">${one.cause === "all" ? "all instances" : one.cause === "one" ? "few instances" : one.cause}</span>
      <span>${one.summary}.</span>
      <button type="button" onClick=${() => onService(one.service_name)}>Show</button>
    </li>`)}</ul>
  </section>`;
};

export class Fleet extends Component {
  constructor(props) {
    super(props);
    this.state = { shown: ROWS_AT_FIRST };
    this.holders = new Set(); // what keeps the rows in place: "pointer", "focus"
    this.held = null;
    this.order = [];
  }

  get query() {
    const { parameters } = this.props;
    const key = parameters.get("sort") || "severity";
    return {
      q: parameters.get("q") ?? "",
      verdict: parameters.get("verdict") ?? "",
      sort: { key, direction: parameters.get("order") || firstDirection(key) },
    };
  }

  /** Changes the address; what has its default stays out of it. */
  set(changes) {
    const { q, verdict, sort } = { ...this.query, ...changes };
    const parameters = new URLSearchParams();
    if (q) parameters.set("q", q);
    if (verdict) parameters.set("verdict", verdict);
    if (sort.key !== "severity" || sort.direction !== "asc") {
      parameters.set("sort", sort.key);
      parameters.set("order", sort.direction);
    }
    this.held = null;
    this.setState({ shown: ROWS_AT_FIRST });
    this.props.onParameters(parameters);
  }

  sortBy(key) {
    const { sort } = this.query;
    const other = sort.direction === "asc" ? "desc" : "asc";
    this.set({ sort: { key, direction: sort.key === key ? other : firstDirection(key) } });
  }

  /** Keeps the order while the pointer or the focus is on the table: a row must not jump from under either. */
  hold(holder) {
    this.holders.add(holder);
    this.held ??= this.order;
  }

  release(holder) {
    this.holders.delete(holder);
    if (!this.holders.size) this.held = null;
  }

  /** The rows in order, or as they are held; rows that are new come last then. */
  rows({ q, verdict, sort }) {
    const { store } = this.props;
    const found = [...store.processes.values()].filter((process) => matches(process, q, verdict));
    found.sort(comparator(sort, store.now));
    if (this.held) {
      const place = new Map(this.held.map((id, index) => [id, index]));
      found.sort((a, b) => (place.get(a.id) ?? Infinity) - (place.get(b.id) ?? Infinity) || 0);
    }
    this.order = found.map((process) => process.id);
    if (this.holders.size) this.held ??= this.order;
    return found;
  }

  /** Up and down go from row to row, as in a list; Enter is the link's own. */
  moved(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches("a.service")) return;
    const links = [...event.currentTarget.querySelectorAll("a.service")];
    const next = links[links.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  clicked(event) {
    if (event.defaultPrevented || event.target.closest("a, button") || String(getSelection())) return;
    const row = event.target.closest("tr[data-id]");
    if (row) location.hash = `#/process/${encodeURIComponent(row.dataset.id)}`;
  }

  counts() {
    const counts = Object.fromEntries(VERDICTS.map((verdict) => [verdict, 0]));
    for (const process of this.props.store.processes.values()) {
      counts[process.verdict in counts ? process.verdict : "unknown"] += 1;
    }
    return counts;
  }

  heading(counts, total) {
    if (counts.leaking) return `${counts.leaking} of ${total} ${total === 1 ? "process" : "processes"} ${counts.leaking === 1 ? "is" : "are"} leaking`;
    if (counts.watch) return `No leak found; ${counts.watch} of ${total} worth watching`;
    if (counts.healthy === total) return total === 1 ? "The one process is healthy" : `All ${total} processes are healthy`;
    if (counts.unknown === total) return `Too early to judge ${total === 1 ? "the one process" : `the ${total} processes`} seen so far`;
    return `No leak found in ${total} ${total === 1 ? "process" : "processes"}`;
  }

  render({ store, sparks }, { shown }) {
    const total = store.processes.size;
    if (!total) return html`<${Empty} connected=${store.connection.state === "live"} />`;
    const query = this.query;
    const counts = this.counts();
    const rows = this.rows(query);
    const visible = rows.slice(0, shown);
    return html`
      <div class="heading"><h1 tabindex="-1">${this.heading(counts, total)}</h1></div>
      <${Common} findings=${store.fleet} onService=${(q) => this.set({ q, verdict: "" })} />
      <${AlertStrip} alerts=${store.firing()} now=${store.now} />
      <div class="tools" role="search">
        <div class="chips" role="group" aria-label="Show by verdict">
          ${VERDICTS.map((verdict) => html`<button type="button" class=${`chip is-${verdict}`} key=${verdict}
            aria-pressed=${String(query.verdict === verdict)}
            onClick=${() => this.set({ verdict: query.verdict === verdict ? "" : verdict })}>
            <${Icon} verdict=${verdict} />${VERDICT_WORDS[verdict]} <b>${counts[verdict]}</b></button>`)}
        </div>
        <label class="filter"><span class="visually-hidden">Filter by service, instance, host, verdict or suspect</span>
          <input id="filter" type="search" placeholder="Filter: service, host, suspect…  ( / )" autocomplete="off" spellcheck="false"
            value=${query.q} onInput=${(event) => this.set({ q: event.target.value })} /></label>
      </div>
      <div class="table-box">
      <table role="table" class="fleet" aria-label="Processes"
        onMouseEnter=${() => this.hold("pointer")} onMouseLeave=${() => this.release("pointer")}
        onFocusIn=${() => this.hold("focus")} onFocusOut=${() => this.release("focus")}>
        <thead role="rowgroup"><tr role="row">${COLUMNS.map(({ key, name, number }) => html`
          <th role="columnheader" scope="col" key=${name} class=${number ? "number" : ""}
            aria-sort=${key && query.sort.key === key ? `${query.sort.direction}ending` : undefined}>
            ${key ? html`<button type="button" onClick=${() => this.sortBy(key)}>${name}<span class="arrow" aria-hidden="true">${
              query.sort.key === key ? (query.sort.direction === "asc" ? "▲" : "▼") : ""}</span></button>` : name}
          </th>`)}</tr></thead>
        <tbody role="rowgroup" onKeyDown=${(event) => this.moved(event)} onClick=${(event) => this.clicked(event)}>
          ${visible.map((process) => {
            const silence = store.silence(process);
            return html`<${Row} key=${process.id} process=${process} curve=${sparks.get(process.id)} sparks=${sparks}
              silence=${silence === null ? "" : duration(silence)} />`;
          })}
        </tbody>
      </table>
      </div>
      <div class="foot">
        ${!rows.length && html`<p>Nothing matches.
          <button type="button" onClick=${() => this.set({ q: "", verdict: "" })}>Show all ${total}</button></p>`}
        ${rows.length > visible.length && html`<button type="button" class="primary"
          onClick=${() => this.setState({ shown: shown + ROWS_MORE })}>Show ${Math.min(ROWS_MORE, rows.length - visible.length)} more</button>`}
        ${rows.length > 0 && html`<p class="muted">${visible.length} of ${rows.length}${rows.length < total ? ` found among ${total}` : ""}${
          store.truncated ? "; the analyzer knows more than this page takes" : ""}</p>`}
      </div>`;
  }
}
