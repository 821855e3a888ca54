// Owns the small curves of the fleet table: fetched only for rows on the screen, few at a time, kept within a bound,
// and prolonged by what the stream brings.

import { bytes, seconds } from "./format.js";
import { Component, html } from "./ui.js";

const SPAN_SECONDS = 1800;
const LEAST_SECONDS = 120; // a process of some seconds doesn't fill the width with its warm-up
const POINTS = 60;
const AT_ONCE = 4;
const MOST_KEPT = 1000;
const WIDTH = 120;
const HEIGHT = 32;
const LIMIT_IN_VIEW = 0.7; // from this share of the limit on, the limit is in the picture
const LEAST_SPAN = 0.25; // else the scale spans at least this share of the highest value: a flat series looks flat
const STALE_FETCH_SECONDS = 600;

/** Lowest and highest value of the vertical scale. */
export function scale(values, limit) {
  const present = values.filter((value) => value !== null);
  const high = Math.max(...present);
  const low = Math.min(...present);
  if (limit && high >= limit * LIMIT_IN_VIEW) return { low: Math.min(low, limit / 2), high: Math.max(limit, high), limited: true };
  const missing = Math.max(0, high * LEAST_SPAN - (high - low));
  return { low: Math.max(0, low - missing * 0.7), high: high + missing * 0.3 || 1, limited: false };
}

/** SVG path of the curve; a null breaks it. */
export function path(times, values, { low, high }) {
  const last = times.at(-1);
  const wide = Math.max(last - times[0], LEAST_SECONDS);
  const inner = HEIGHT - 4;
  let pen = "M";
  let text = "";
  values.forEach((value, index) => {
    if (value === null) {
      pen = "M";
      return;
    }
    const x = WIDTH - ((last - times[index]) / wide) * WIDTH;
    const y = 2 + inner - ((value - low) / (high - low)) * inner;
    text += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  });
  return text;
}

export class Sparks {
  constructor(api, onChange) {
    this.api = api;
    this.onChange = onChange;
    this.kept = new Map();
    this.waiting = new Map();
    this.running = 0;
  }

  get(id) {
    return this.kept.get(id);
  }

  /** Asks for the curve of a row that came on the screen. */
  want(process) {
    const kept = this.kept.get(process.id);
    if ((kept && this.api.now() - kept.fetched < STALE_FETCH_SECONDS) || this.waiting.has(process.id)) return;
    this.waiting.set(process.id, process);
    this.pump();
  }

  unwant(id) {
    this.waiting.delete(id);
  }

  async pump() {
    if (this.running >= AT_ONCE || this.waiting.size === 0) return;
    const [[id, process]] = this.waiting;
    this.waiting.delete(id);
    this.running += 1;
    try {
      const last = Math.min(this.api.now(), (seconds(process.last_seen) ?? Infinity) + 1);
      const series = await this.api.series(id, { metric: "memory", from: last - SPAN_SECONDS, to: last, points: POINTS });
      this.keep(id, { times: series.times, values: series.values, fetched: this.api.now() });
    } catch {
      this.keep(id, { times: [], values: [], fetched: this.api.now() }); // the row says the number; the curve is a help
    } finally {
      this.running -= 1;
      this.pump();
    }
  }

  keep(id, curve) {
    this.kept.delete(id);
    this.kept.set(id, curve);
    if (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value);
    this.onChange();
  }

  /** A live reading joins the curve. */
  append(process) {
    const kept = this.kept.get(process.id);
    const time = seconds(process.last_seen);
    if (!kept || time === null || typeof process.memory_bytes !== "number") return;
    this.kept.set(process.id, { ...prolong(kept, time, process.memory_bytes), fetched: kept.fetched });
  }
}

/** A curve with one more reading, without what is older than its span, and with every other point where it grew dense. */
export function prolong(curve, time, value) {
  if (curve.times.length && time <= curve.times.at(-1)) return curve;
  const times = [...curve.times, time];
  const values = [...curve.values, value];
  const dense = times.length > 2 * POINTS;
  const keep = (_, index) => times[index] >= time - SPAN_SECONDS && (!dense || (times.length - 1 - index) % 2 === 0);
  return { times: times.filter(keep), values: values.filter(keep) };
}

/** One curve. Holds its place while it loads, so that nothing moves. */
export class Sparkline extends Component {
  held = (element) => {
    this.element = element;
  };

  componentDidMount() {
    this.observer = new IntersectionObserver((entries) => {
      if (entries.at(-1).isIntersecting) this.props.sparks.want(this.props.process);
      else this.props.sparks.unwant(this.props.process.id);
    }, { rootMargin: "100px" });
    this.observer.observe(this.element);
  }

  componentWillUnmount() {
    this.observer.disconnect();
    this.props.sparks.unwant(this.props.process.id);
  }

  render({ process, curve }) {
    const values = curve?.values ?? [];
    const present = values.filter((value) => value !== null);
    if (present.length < 2) {
      return html`<span ref=${this.held} class="spark"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" width=${WIDTH} height=${HEIGHT} aria-hidden="true"></svg></span>`;
    }
    const view = scale(values, process.limit_bytes);
    const limitY = 2 + (HEIGHT - 4) * (1 - (process.limit_bytes - view.low) / (view.high - view.low));
    const told = `${bytes(present[0])} to ${bytes(present.at(-1))} in the last ${Math.max(1, Math.round((curve.times.at(-1) - curve.times[0]) / 60))} min`;
    return html`<span ref=${this.held} class="spark" title=${view.limited ? `${told}; the dashed line is the limit` : told}>
      <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" width=${WIDTH} height=${HEIGHT} role="img" aria-label=${told}>
        ${view.limited && html`<line class="limit" x1="0" x2=${WIDTH} y1=${limitY} y2=${limitY} />`}
        <path class="curve" d=${path(curve.times, values, view)} />
      </svg>
    </span>`;
  }
}
