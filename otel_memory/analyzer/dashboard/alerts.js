// Owns the alerts view: firing first, then pending, then what is over.

import { bytes, clock, duration, exact, seconds } from "./format.js";
import { byAlertUrgency, instanceOf, nameOf } from "./judge.js";
import { Component, html } from "./ui.js";

const RESOLVED_AT_FIRST = 50;
const GROUPS = [
  { state: "firing", name: "Firing", none: "No alert is firing." },
  { state: "pending", name: "Pending", none: null },
  { state: "resolved", name: "Resolved", none: null },
];

export const Alert = ({ alert, process, now }) => {
  const lasted = alert.ends_at ? seconds(alert.ends_at) - seconds(alert.starts_at) : now - seconds(alert.starts_at);
  const name = process ? nameOf(process) : alert.labels?.service_name ?? alert.process;
  return html`<li class=${`alert state-${alert.state} severity-${alert.severity}`}>
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
    </div>
  </li>`;
};

export class Alerts extends Component {
  render({ store }, { all }) {
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
                process=${store.processes.get(alert.process)} now=${store.now} />`)}</ul>`
            : html`<p class="muted">${none} An alert fires when a process leaks, or is close to its limit, for longer than a moment.</p>`}
          ${shown.length < group.length && html`<button type="button" onClick=${() => this.setState({ all: true })}>Show all ${group.length}</button>`}
        </section>`;
      })}`;
  }
}
