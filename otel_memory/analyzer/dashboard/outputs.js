// Owns how the places look that alerts go to: what each got, what waits, what is wrong.

import { ABSENT, clock, count, exact } from "./format.js";
import { Icon, html } from "./ui.js";

function standing(output, now) {
  if (output.failing_since) return { verdict: "leaking", words: `Failing since ${clock(output.failing_since, now)}` };
  if (output.pending) return { verdict: "unknown", words: "Sending" };
  return { verdict: "healthy", words: output.last_delivered ? "Well" : "Nothing to tell yet" };
}

const Output = ({ output, now }) => {
  const { verdict, words } = standing(output, now);
  return html`<tr role="row">
    <th role="rowheader" scope="row">${output.name}${output.failing_since && output.last_error && html`<span class="sub wrong">${output.last_error}</span>`}</th>
    <td role="cell" class=${`standing is-${verdict}`}><${Icon} verdict=${verdict} />${words}</td>
    <td role="cell" class="number">${count(output.delivered)}</td>
    <td role="cell" class="number">${count(output.failed)}</td>
    <td role="cell" class="number">${count(output.abandoned)}</td>
    <td role="cell" class="number">${count(output.pending)}</td>
    <td role="cell" class="number">${count(output.held)}</td>
    <td role="cell" class="number">${output.last_delivered
      ? html`<time datetime=${output.last_delivered} title=${exact(output.last_delivered)}>${clock(output.last_delivered, now)}</time>` : ABSENT}</td>
  </tr>`;
};

const COLUMNS = ["Output", "State", "Delivered", "Failed tries", "Given up", "Waiting", "Silenced", "Last delivery"];

export const Outputs = ({ outputs, now }) => html`<section class="group"><h2>Outputs <span class="count">${outputs.length}</span></h2>
  ${outputs.length
    ? html`<div class="table-box"><table role="table" class="outputs" aria-label="Outputs">
        <thead role="rowgroup"><tr role="row">${COLUMNS.map((name, at) => html`<th role="columnheader" scope="col" key=${name}
          class=${at > 1 ? "number" : ""}>${name}</th>`)}</tr></thead>
        <tbody role="rowgroup">${outputs.map((output) => html`<${Output} key=${output.name} output=${output} now=${now} />`)}</tbody>
      </table></div>`
    : html`<p class="muted">Alerts go nowhere but to this page. <code>otel-memory serve --help</code> names the outputs.</p>`}
</section>`;
