// Owns the alerts view: firing first, then pending, then what is over; silences; and where alerts go.

import { bytes, clock, duration, exact, seconds } from "./format.js";
import { byAlertUrgency, instanceOf, nameOf } from "./judge.js";
import { Outputs } from "./outputs.js";
import { Silence, SilenceForm } from "./silences.js";
import { Component, html } from "./ui.js";

const RESOLVED_AT_FIRST = 50;
const REFRESH_MS = 10_000;
const GROUPS = [
  { state: "firing", name: "Firing", none: "No alert is firing." },
  { state: "pending", name: "Pending", none: null },
  { state: "resolved", name: "Resolved", none: null },
];

export const Alert = ({ alert, process, now, onSilence, children }) => {
  const lasted = alert.ends_at ? seconds(alert.ends_at) - seconds(alert.starts_at) : now - seconds(alert.starts_at);
  const name = process ? nameOf(process) : alert.labels?.service_name ?? alert.process;
  const silenced = alert.state !== "resolved" && alert.silenced_by?.length > 0;
  return html`<li class=${`alert state-${alert.state} severity-${alert.severity} ${silenced ? "silenced" : ""}`}>
    <span class="severity">${alert.severity}</span>
    <div class="what">
      <p class="summary">${alert.summary}</p>
      ${alert.description && alert.description !== alert.summary && html`<p class="muted">${alert.description}</p>`}
      <p class="where"><a href=${`#/process/${encodeURIComponent(alert.process)}`}>${name}</a>
        ${process && html`<span class="muted"> ${instanceOf(process)} · ${bytes(process.memory_bytes)}</span>`}</p>
    </div>
    <div class="when">
      <time datetime=${alert.starts_at} title=${exact(alert.starts_at)}>since ${clock(alert.starts_at, now)}</time>
      <span class="muted">${alert.ends_at ? `lasted ${duration(lasted)}, until ${clock(alert.ends_at, now)}` : `for ${duration(lasted)}`}</span>
      ${silenced && html`<span class="mark">Silenced</span>`}
      ${onSilence && !silenced && alert.state !== "resolved" && html`<button type="button" onClick=${onSilence}
        aria-label=${`Silence: ${alert.summary}`}>Silence</button>`}
    </div>
    ${children}
  </li>`;
};

export class Alerts extends Component {
  constructor(props) {
    super(props);
    this.state = { silences: null, outputs: null, error: null, form: null };
  }

  componentDidMount() {
    this.refresh();
    this.timer = setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
  }

  componentWillUnmount() {
    clearInterval(this.timer);
    this.gone = true;
  }

  componentDidUpdate() {
    // Somebody else made or ended a silence: the alerts say so at once.
    const marks = [...this.props.store.alerts.values()].flatMap((alert) => alert.silenced_by ?? []).join();
    if (marks === this.marks) return;
    const first = this.marks === undefined;
    this.marks = marks;
    if (!first) this.refresh();
  }

  async refresh() {
    const { api } = this.props;
    try {
      const [silences, outputs] = await Promise.all([api.silences(), api.outputs()]);
      if (!this.gone) this.setState({ silences, outputs, error: null });
    } catch (error) {
      // What is shown stays; the banner tells of a lost connection.
      if (!this.gone) this.setState({ error });
    }
  }

  made() {
    this.setState({ form: null });
    this.refresh();
  }

  async end(silence) {
    try {
      await this.props.api.endSilence(silence.id);
      this.setState({ error: null });
    } catch (error) {
      this.setState({ error });
      return;
    }
    this.refresh();
  }

  form(alerts, alert) {
    return html`<${SilenceForm} api=${this.props.api} alert=${alert} alerts=${alerts.filter(({ state }) => state !== "resolved")}
      onDone=${() => this.made()} onCancel=${() => this.setState({ form: null })} />`;
  }

  silences(alerts, now) {
    const { silences, error, form } = this.state;
    const current = (silences ?? []).filter(({ state }) => state !== "over").sort((a, b) => seconds(a.ends_at) - seconds(b.ends_at));
    return html`<section class="group"><h2>Silences <span class="count">${silences ? current.length : ""}</span></h2>
      ${error && html`<p class="wrong" role="alert">${error.message}</p>`}
      ${current.length > 0 && html`<ul class="alerts">${current.map((silence) => html`<${Silence} key=${silence.id} silence=${silence}
        now=${now} onEnd=${() => this.end(silence)} />`)}</ul>`}
      ${silences && !current.length && html`<p class="muted">Nothing is silenced: every output is told of every alert.</p>`}
      ${form === "new"
        ? this.form(alerts, null)
        : html`<p class="foot"><button type="button" onClick=${() => this.setState({ form: "new" })}>New silence</button></p>`}
    </section>`;
  }

  render({ store }, { all, form, outputs }) {
    const alerts = [...store.alerts.values()].sort(byAlertUrgency);
    const firing = alerts.filter((alert) => alert.state === "firing").length;
    return html`
      <div class="heading"><h1 tabindex="-1">${firing ? `${firing} ${firing === 1 ? "alert is" : "alerts are"} firing` : "No alert is firing"}</h1></div>
      ${GROUPS.map(({ state, name, none }) => {
        const group = alerts.filter((alert) => alert.state === state);
        const shown = state === "resolved" && !all ? group.slice(0, RESOLVED_AT_FIRST) : group;
        if (!group.length && !none) return null;
        return html`<section class="group" key=${state}><h2>${name} <span class="count">${group.length}</span></h2>
          ${group.length
            ? html`<ul class="alerts">${shown.map((alert) => html`<${Alert} key=${alert.id} alert=${alert}
                process=${store.processes.get(alert.process)} now=${store.now}
                onSilence=${form === alert.id ? null : () => this.setState({ form: alert.id })}>${
                  form === alert.id && alert.state !== "resolved" && this.form(alerts, alert)}<//>`)}</ul>`
            : html`<p class="muted">${none} An alert fires when a process leaks, or is close to its limit, for longer than a moment.</p>`}
          ${shown.length < group.length && html`<button type="button" onClick=${() => this.setState({ all: true })}>Show all ${group.length}</button>`}
        </section>`;
      })}
      ${this.silences(alerts, store.now)}
      ${outputs && html`<${Outputs} outputs=${outputs} now=${store.now} />`}`;
  }
}
