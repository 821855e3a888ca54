// Owns the panels of the process view that only lay out what they are given.

import { ABSENT, bytes, clock, exact, growth, percent } from "./format.js";
import { limitKindWords } from "./judge.js";
import { Bar, html } from "./ui.js";

const confidenceWords = (value) => (value >= 0.75 ? "high" : value >= 0.4 ? "medium" : "low");

const NO_SUSPECT = {
  healthy: "No leak was found, so nothing is suspected.",
  unknown: "There is too little data yet to suspect anything.",
};

export const Suspects = ({ suspects, verdict }) => html`<section class="panel" aria-label="Suspects">
  <h2>Who grows</h2>
  ${suspects.length
    ? html`<table class="suspects"><thead><tr><th scope="col">Suspect</th><th scope="col" class="number">Growth</th><th scope="col">Share of growth</th><th scope="col">Confidence</th></tr></thead>
      <tbody>${suspects.map((suspect) => html`<tr key=${`${suspect.kind} ${suspect.name}`}>
        <th scope="row"><span class="kind">${suspect.kind}</span> <span class="name">${suspect.name}</span>
          ${suspect.evidence && html`<span class="evidence">${suspect.evidence}</span>`}</th>
        <td class="number">${growth(suspect.growth_bytes_per_second)}</td>
        <td><span class="use"><${Bar} share=${suspect.share} /><span class="number">${percent(suspect.share)}</span></span></td>
        <td>${typeof suspect.confidence === "number" ? html`${confidenceWords(suspect.confidence)} <span class="muted">${percent(suspect.confidence)}</span>` : ABSENT}</td>
      </tr>`)}</tbody></table>`
    : html`<p class="muted">${NO_SUSPECT[verdict] ?? "No route or operation stands out yet. If that stays so, wrap candidates with @monitor_memory, or name them in OTEL_PYTHON_MEMORY_OPERATIONS."}</p>`}
</section>`;

const shortPath = (site) => site.replace(/^.*\/(?=[^/]+\/[^/]+:\d)/, "…/");

const Grown = ({ title, names, figures }) => (names?.length ? html`<h3>${title}</h3>
  <ul class="grown">${names.slice(0, 5).map((name, index) => html`<li key=${name} title=${name}>
    <code>${shortPath(name)}</code>${typeof figures?.[index] === "number" && html` <span class="number muted">${title === "Allocated at" ? growth(figures[index]) : `+${figures[index].toLocaleString("en-US")}`}</span>`}</li>`)}</ul>` : null);

/** `findings`: what the process found of its own growth, newest first; the newest one is shown. */
export const Evidence = ({ findings, now }) => {
  const found = findings?.[0];
  if (!found) return null;
  return html`<section class="panel" aria-label="Evidence">
    <h2>What the process found</h2>
    <p class="finding">${found.summary} <time class="muted" title=${exact(found.time)}>${clock(found.time, now)}</time></p>
    <${Grown} title="Allocated at" names=${found.site} figures=${found.site_growth} />
    <${Grown} title="Held by" names=${found.holder} figures=${found.holder_growth} />
    <${Grown} title="Types" names=${found.type} figures=${found.type_growth} />
    ${found.note?.length > 0 && html`<ul class="reasons">${found.note.map((note) => html`<li key=${note}>${note}</li>`)}</ul>`}
  </section>`;
};

const SEVERITY_TONES = { high: "critical", medium: "warning", low: "info" };

/** `suggestions`: what could be done, best first. */
export const Suggestions = ({ suggestions }) => (suggestions?.length ? html`<section class="panel" aria-label="What to do">
  <h2>What to do</h2>
  <ol class="suggestions">${suggestions.map((one) => html`<li key=${`${one.shape} ${one.subject}`}>
    <p class="finding">${one.recommendation}. <span class=${`severity severity-${SEVERITY_TONES[one.severity] ?? "info"}`}>${one.severity}</span></p>
    <p class="muted">${one.message}. ${one.expected_effect}.</p>
    <details><summary>Is it this?</summary><p>${one.check}</p>${one.example && html`<pre><code>${one.example}</code></pre>`}<p class="muted">${one.link}</p></details></li>`)}</ol>
</section>` : null);

export const Reasons = ({ reasons }) => html`<section class="panel" aria-label="Reasons">
  <h2>Why this verdict</h2>
  ${reasons.length ? html`<ul class="reasons">${reasons.map((reason) => html`<li key=${reason}>${reason}</li>`)}</ul>`
    : html`<p class="muted">No reasons given yet.</p>`}
</section>`;

export const Events = ({ events, now }) => html`<section class="panel" aria-label="Events">
  <h2>What happened</h2>
  ${events.length ? html`<ol class="events">${events.map((event) => html`<li key=${`${event.time} ${event.text}`} class=${event.tone && `severity-${event.tone}`}>
      <time title=${exact(event.time)}>${clock(event.time, now)}</time><span>${event.text}</span></li>`)}</ol>`
    : html`<p class="muted">No events.</p>`}
</section>`;

const Fact = ({ name, children }) => (children === null || children === undefined || children === "" ? null : html`<div><dt>${name}</dt><dd>${children}</dd></div>`);

export const Facts = ({ process, now }) => html`<section class="panel" aria-label="Facts">
  <h2>Facts</h2>
  <dl class="facts">
    <${Fact} name="Service">${process.service_name}<//>
    <${Fact} name="Version">${process.service_version}<//>
    <${Fact} name="Instance">${process.service_instance_id}<//>
    <${Fact} name="Host">${process.host_name}<//>
    <${Fact} name="Pid">${process.pid}<//>
    <${Fact} name="Runtime">${process.runtime}<//>
    <${Fact} name="First seen">${process.first_seen && html`<time title=${exact(process.first_seen)}>${clock(process.first_seen, now)}</time>`}<//>
    <${Fact} name="Last seen">${process.last_seen && html`<time title=${exact(process.last_seen)}>${clock(process.last_seen, now)}</time>`}<//>
    <${Fact} name="Memory (RSS)">${bytes(process.memory_bytes)}<//>
    <${Fact} name="Limit">${process.limit_bytes ? bytes(process.limit_bytes) : "none known"}<//>
    <${Fact} name="Limit set by">${process.limit_kind && limitKindWords(process.limit_kind)}<//>
    <${Fact} name="Process id"><code>${process.id}</code><//>
  </dl>
</section>`;

const PART_WORDS = {
  python_used: "Python objects",
  python_free: "kept free by Python",
  c_used: "C allocator, in use",
  c_free: "kept free by the C allocator",
  file: "files",
  shared: "shared memory",
  stack: "stacks of threads",
  other: "other",
};
const partWords = (name) => PART_WORDS[name] ?? name.replaceAll("_", " ");

/** `parts`: {name: bytes or null}, each a part of `total`. */
export const Breakdown = ({ parts, total }) => {
  const known = Object.entries(parts ?? {}).filter(([, value]) => typeof value === "number");
  if (!known.length) return null;
  return html`<section class="panel" aria-label="Parts of the memory">
    <h2>Where the memory is</h2>
    <table class="parts"><tbody>${known.map(([name, value]) => html`<tr key=${name}><th scope="row">${partWords(name)}</th>
      <td class="number">${bytes(value)}</td><td><${Bar} share=${total ? value / total : null} /></td></tr>`)}</tbody></table>
  </section>`;
};
