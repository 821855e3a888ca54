// Owns silences on the page: the list, how one is made for an alert or from nothing, and how one is ended.

import { clock, duration, exact, seconds } from "./format.js";
import { Component, html } from "./ui.js";

const LABELS = [
  "alertname", "severity", "service_name", "service_version", "service_instance_id", "host_name", "process_id", "alert_id",
];
const OPERATORS = [
  { sign: "=", words: "is", is_equal: true, is_regex: false },
  { sign: "!=", words: "is not", is_equal: false, is_regex: false },
  { sign: "=~", words: "matches", is_equal: true, is_regex: true },
  { sign: "!~", words: "does not match", is_equal: false, is_regex: true },
];
const SPANS = [
  { seconds: 3600, words: "1 hour" },
  { seconds: 4 * 3600, words: "4 hours" },
  { seconds: 86400, words: "1 day" },
  { seconds: 7 * 86400, words: "1 week" },
];

const signOf = ({ is_equal, is_regex }) =>
  OPERATORS.find((one) => one.is_equal === is_equal && one.is_regex === is_regex).sign;

/** What matchers see of an alert: its labels, and the names that every alert has. */
export const labelsOf = (alert) => ({
  ...alert.labels, alertname: alert.name, severity: alert.severity, process_id: alert.process, alert_id: alert.id,
});

/** Whether every matcher agrees; null where a regular expression is none (the analyzer says what is wrong with it). */
export function agrees(matchers, labels) {
  try {
    return matchers.every(({ name, value, is_equal, is_regex }) => {
      const has = labels[name] ?? "";
      return (is_regex ? new RegExp(`^(?:${value})$`, "su").test(has) : has === value) === is_equal;
    });
  } catch {
    return null;
  }
}

/** What a silence for this alert alone would say; without its last lines it is for more. */
export function matchersFor(alert) {
  const labels = labelsOf(alert);
  const told = ["alertname", "service_name", labels.service_instance_id ? "service_instance_id" : "process_id"];
  return told.filter((name) => labels[name]).map((name) => ({ name, value: labels[name], is_equal: true, is_regex: false }));
}

export class SilenceForm extends Component {
  constructor(props) {
    super(props);
    const first = { name: "service_name", value: "", is_equal: true, is_regex: false };
    this.state = { matchers: props.alert ? matchersFor(props.alert) : [first], span: SPANS[0].seconds, error: null };
  }

  componentDidMount() {
    this.form?.querySelector("input, select")?.focus();
  }

  change(index, fields) {
    const matchers = this.state.matchers.map((one, at) => (at === index ? { ...one, ...fields } : one));
    this.setState({ matchers, error: null });
  }

  async submit(event) {
    event.preventDefault();
    if (this.state.busy) return;
    const given = new FormData(event.target);
    this.setState({ busy: true, error: null });
    try {
      await this.props.api.makeSilence({
        matchers: this.state.matchers,
        duration_seconds: this.state.span,
        comment: given.get("comment").trim(),
        created_by: given.get("created_by").trim(),
      });
      this.props.onDone();
    } catch (error) {
      this.setState({ busy: false, error });
    }
  }

  render({ alerts, onCancel }, { matchers, span, error, busy }) {
    const found = alerts.map((alert) => agrees(matchers, labelsOf(alert)));
    const number = found.includes(null) ? null : found.filter(Boolean).length;
    return html`<form class="silence-form panel" ref=${(node) => { this.form = node; }} onSubmit=${(event) => this.submit(event)}
      onKeyDown=${(event) => { if (event.key === "Escape") { event.stopPropagation(); onCancel(); } }}>
      <fieldset><legend>Tell nobody of alerts where</legend>
        ${matchers.map((one, index) => html`<div class="matcher" key=${index}>
          <select aria-label="Label" value=${one.name} onChange=${(event) => this.change(index, { name: event.target.value })}>
            ${LABELS.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>
          <select aria-label="Condition" value=${signOf(one)} onChange=${(event) => {
            const { is_equal, is_regex } = OPERATORS.find(({ sign }) => sign === event.target.value);
            this.change(index, { is_equal, is_regex });
          }}>${OPERATORS.map(({ sign, words }) => html`<option key=${sign} value=${sign}>${words}</option>`)}</select>
          <input aria-label="Value" value=${one.value} required maxlength="1024" spellcheck="false" autocomplete="off"
            onInput=${(event) => this.change(index, { value: event.target.value })} />
          <button type="button" disabled=${matchers.length === 1} aria-label=${`Remove the condition on ${one.name}`}
            onClick=${() => this.setState({ matchers: matchers.filter((_, at) => at !== index), error: null })}>Remove</button>
        </div>`)}
        <button type="button" onClick=${() => this.setState({
          matchers: [...matchers, { name: "service_version", value: "", is_equal: true, is_regex: false }],
        })}>Add a condition</button>
      </fieldset>
      <div class="fields">
        <label>For <select name="span" value=${span} onChange=${(event) => this.setState({ span: Number(event.target.value) })}>
          ${SPANS.map((one) => html`<option key=${one.seconds} value=${one.seconds}>${one.words}</option>`)}</select></label>
        <label class="wide">Why <input name="comment" maxlength="1000" autocomplete="off" placeholder="load test" /></label>
        <label>Who <input name="created_by" maxlength="200" autocomplete="name" /></label>
      </div>
      ${error && html`<p class="wrong" role="alert">${error.message}</p>`}
      <div class="actions">
        <button type="submit" class="primary" disabled=${busy}>Silence</button>
        <button type="button" onClick=${onCancel}>Cancel</button>
        <span class="muted" aria-live="polite">${number === null ? "" : `For ${number} of the ${alerts.length} alerts that are not over, and any that come.`}</span>
      </div>
    </form>`;
  }
}

const Matchers = ({ matchers }) => html`<span class="matchers">${matchers.map((one, index) => html`<code key=${index}>${
  one.name}${signOf(one)}"${one.value}"</code>`)}</span>`;

export const Silence = ({ silence, now, onEnd }) => {
  const begins = seconds(silence.starts_at);
  const ends = seconds(silence.ends_at);
  const when = silence.state === "coming" ? `begins in ${duration(begins - now)}` : `ends in ${duration(ends - now)}`;
  return html`<li class="hush">
    <div class="what">
      <${Matchers} matchers=${silence.matchers} />
      <p class="muted">${[silence.comment, silence.created_by].filter(Boolean).join(" · ")}</p>
    </div>
    <div class="when">
      <time datetime=${silence.ends_at} title=${exact(silence.ends_at)}>until ${clock(silence.ends_at, now)}</time>
      <span class="muted">${when}</span>
    </div>
    <button type="button" aria-label=${`End the silence where ${silence.matchers.map((one) => `${one.name} ${signOf(one)} ${one.value}`).join(", ")}`}
      onClick=${onEnd}>End</button>
  </li>`;
};
