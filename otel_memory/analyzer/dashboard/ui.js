// Owns the small pieces that several views share. Text always goes through the renderer as text, never as markup.

import { Component, h, render } from "./vendor/preact/preact.mjs";
import htm from "./vendor/htm/htm.module.js";
import { VERDICT_WORDS } from "./judge.js";

export { Component, render };
export const html = htm.bind(h);

// Each verdict has a shape of its own, so that it reads without colour.
const SHAPES = {
  leaking: "M8 1.2 L15.2 14.4 H0.8 Z M7.2 5.6 V10 H8.8 V5.6 Z M7.2 11.2 V12.8 H8.8 V11.2 Z",
  watch: "M8 0.8 L15.2 8 L8 15.2 L0.8 8 Z M7.2 4.6 V9 H8.8 V4.6 Z M7.2 10.1 V11.7 H8.8 V10.1 Z",
  healthy: "M8 1 A7 7 0 1 1 7.99 1 Z M4.2 8.1 L6.9 10.9 L11.9 5.7 L10.8 4.6 L6.9 8.7 L5.3 7 Z",
  unknown: "M8 1 A7 7 0 1 1 7.99 1 Z M8 2.6 A5.4 5.4 0 1 0 8.01 2.6 Z M7.2 4.4 H8.8 V8 L11 9.6 L10.1 10.9 L7.2 8.8 Z",
};

export const Icon = ({ verdict }) => html`
  <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
    <path fill-rule="evenodd" fill="currentColor" d=${SHAPES[verdict] ?? SHAPES.unknown} />
  </svg>`;

export const Verdict = ({ verdict, large }) => {
  const known = verdict in SHAPES ? verdict : "unknown";
  return html`<span class="verdict is-${known} ${large ? "large" : ""}"><${Icon} verdict=${known} />${VERDICT_WORDS[known]}</span>`;
};

/** A thin bar; `share` 0–1 or null for none. The number stands beside it, so the bar itself is silent. */
export const Bar = ({ share, tone = "" }) => {
  const width = Math.min(1, Math.max(0, share ?? 0)) * 100;
  return html`<span class="bar ${tone}" aria-hidden="true"><span style=${{ width: `${width}%` }}></span></span>`;
};

export const pressure = (share) => (share >= 0.95 ? "critical" : share >= 0.85 ? "high" : "");

export class Copyable extends Component {
  async copy() {
    let done = true;
    try {
      await navigator.clipboard.writeText(this.props.text);
    } catch {
      // Without a secure context there is no clipboard: select it, so that Ctrl-C does the rest.
      getSelection().selectAllChildren(this.code);
      done = false;
    }
    this.setState({ told: done ? "Copied" : "Selected" });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.setState({ told: "" }), 2000);
  }

  componentWillUnmount() {
    clearTimeout(this.timer);
  }

  render({ text, label }, { told }) {
    return html`<div class="copyable">
      <code ref=${(node) => { this.code = node; }}>${text}</code>
      <button type="button" onClick=${() => this.copy()} aria-label=${`Copy: ${label}`}>
        <span aria-live="polite">${told || "Copy"}</span>
      </button>
    </div>`;
  }
}

/** A figure with its name, for a row of key figures. */
export const Figure = ({ name, children, note, title }) => html`
  <div class="figure" title=${title}>
    <dt>${name}</dt>
    <dd><span class="value">${children}</span>${note && html`<span class="note">${note}</span>`}</dd>
  </div>`;

export const Notice = ({ title, children, tone = "" }) => html`
  <section class="notice ${tone}"><h2>${title}</h2>${children}</section>`;

export class TokenForm extends Component {
  render({ onToken }) {
    const submit = (event) => {
      event.preventDefault();
      const token = new FormData(event.target).get("token").trim();
      if (token) onToken(token);
    };
    return html`<form class="token" onSubmit=${submit}>
      <label for="token">Access token</label>
      <div><input id="token" name="token" type="password" autocomplete="current-password" required />
      <button type="submit" class="primary">Open</button></div>
      <p class="muted">The one that the analyzer was started with. It is kept until this tab closes.</p>
    </form>`;
  }
}

/** What went wrong, in words, and what can be done about it. */
export const Failure = ({ error, onRetry, onToken }) =>
  error.status === 401
    ? html`<${Notice} title="This analyzer is locked"><p>${error.message}</p><${TokenForm} onToken=${onToken} /><//>`
    : html`<${Notice} title="Nothing could be loaded" tone="bad">
        <p>${error.message}</p>
        ${error.status === 0 && html`<p>Is it running? <code>otel-memory serve</code> starts it.</p>`}
        <button type="button" class="primary" onClick=${onRetry}>Try again</button>
      <//>`;
