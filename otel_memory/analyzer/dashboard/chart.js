// Owns the drawing of charts with uPlot: colours from the style sheet, size from the page, redraw when either changes.
// What is drawn is decided in chart_model.js.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { BYTE_STEPS, bytes, count } from "./format.js";
import { Component, html } from "./ui.js";

const SYNC = "otel-memory";
const MEASURED = [1, 2, 4]; // memory, floor, forecast: the curves that the pointer reads
const MARKER_REACH = 8; // CSS pixels within which the pointer means a marker
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const pad = (number) => String(number).padStart(2, "0");

function timeLabels(_plot, splits, _axis, _space, step) {
  return splits.map((split) => {
    const date = new Date(split * 1000);
    const midnight = date.getHours() === 0 && date.getMinutes() === 0;
    if (step >= 86400 || midnight) return `${date.getDate()} ${MONTHS[date.getMonth()]}`;
    return `${pad(date.getHours())}:${pad(date.getMinutes())}${step < 60 ? `:${pad(date.getSeconds())}` : ""}`;
  });
}

/** A custom property as a colour that a canvas takes: light-dark() is resolved only on a real element. */
function palette(element) {
  const probe = document.createElement("span");
  element.append(probe);
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const names = ["text", "muted", "grid", "memory", "memory-fill", "floor", "limit", "forecast", "forecast-fill", "marker"];
  const colours = Object.fromEntries(names.map((name) => [name, read(name)]));
  probe.remove();
  return colours;
}

/** The chart's element with its plot; a subclass gives `options(colours)` and `data()`. */
class Plot extends Component {
  held = (element) => {
    if (element) this.element = element; // it is still needed while the plot is taken down
  };

  componentDidMount() {
    this.build();
    this.resizer = new ResizeObserver(() => this.plot.setSize(this.size()));
    this.resizer.observe(this.element);
    this.rebuild = () => {
      this.plot.destroy();
      this.build();
    };
    addEventListener("themechange", this.rebuild);
  }

  shouldComponentUpdate(next) {
    return Object.keys(next).some((name) => name === "markers"
      ? next.markers.length !== this.props.markers.length
      : typeof next[name] !== "function" && next[name] !== this.props[name]);
  }

  componentDidUpdate() {
    this.plot.setData(this.data());
  }

  componentWillUnmount() {
    removeEventListener("themechange", this.rebuild);
    this.resizer.disconnect();
    this.plot.destroy();
  }

  size() {
    return { width: Math.max(200, this.element.clientWidth), height: this.element.clientHeight };
  }

  build() {
    const colours = palette(this.element);
    this.plot = new uPlot({ ...this.size(), ...this.options(colours) }, this.data(), this.element);
  }

  axes(colours, values, steps, space = 34) {
    const common = { stroke: colours.muted, grid: { stroke: colours.grid, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    return [
      { ...common, values: timeLabels, space: 70, size: 26, gap: 6 },
      { ...common, values: (_plot, splits) => splits.map(values), ...(steps && { incrs: steps }), size: 72, space, gap: 6 },
    ];
  }

  pointer() {
    return { y: false, sync: { key: SYNC }, drag: { x: false, y: false } };
  }

  cursor(plot) {
    const { idx, left } = plot.cursor;
    this.props.onHover?.(idx === null || idx === undefined || left < 0 ? null : { index: idx, marker: this.markerAt(plot, left) });
  }

  markerAt() {
    return null;
  }

  render({ label, kind }) {
    return html`<div ref=${this.held} class=${`plot ${kind}`} role="img" aria-label=${label}></div>`;
  }
}

export class MemoryChart extends Plot {
  data() {
    const { x, columns } = this.props.model;
    return [x, columns.memory, columns.floor, columns.limit, columns.forecast, columns.soon, columns.late];
  }

  options(colours) {
    const line = (stroke, more) => ({ stroke, width: 2, points: { show: false }, spanGaps: false, ...more });
    return {
      legend: { show: false },
      padding: [8, 8, 0, 0],
      cursor: { ...this.pointer(), points: { size: (_plot, series) => (MEASURED.includes(series) ? 7 : 0) } },
      scales: {
        x: { time: true, range: () => [this.props.model.from, this.props.model.to] },
        y: { range: () => [this.props.model.low, this.props.model.high] },
      },
      axes: this.axes(colours, bytes, BYTE_STEPS),
      series: [
        {},
        line(colours.memory, { fill: colours["memory-fill"] }),
        line(colours.floor, { width: 1.5, paths: uPlot.paths.stepped({ align: 1 }) }),
        line(colours.limit, { width: 2, dash: [8, 5] }),
        line(colours.forecast, { dash: [3, 4] }),
        line(colours.forecast, { width: 0.5 }),
        line(colours.forecast, { width: 0.5 }),
      ],
      bands: [{ series: [5, 6], fill: colours["forecast-fill"] }],
      hooks: {
        draw: [(plot) => this.marks(plot, colours)],
        setCursor: [(plot) => this.cursor(plot)],
      },
    };
  }

  /** Vertical lines for events, and the moment from which on everything is forecast. */
  marks(plot, colours) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = ratio;
    for (const marker of this.props.markers) {
      const x = Math.round(plot.valToPos(marker.time, "x", true));
      ctx.strokeStyle = ctx.fillStyle = colours.marker;
      ctx.setLineDash([2 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath(); // a flag, so that a marker isn't taken for a grid line
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x + 9 * ratio, bbox.top + 5 * ratio);
      ctx.lineTo(x, bbox.top + 10 * ratio);
      ctx.fill();
    }
    ctx.restore();
  }

  markerAt(plot, left) {
    const near = this.props.markers
      .map((marker) => ({ marker, distance: Math.abs(plot.valToPos(marker.time, "x") - left) }))
      .filter(({ distance }) => distance <= MARKER_REACH)
      .sort((a, b) => a.distance - b.distance);
    return near[0]?.marker ?? null;
  }
}

/** A small chart of another metric under the same time axis and cursor. */
export class SideChart extends Plot {
  data() {
    return [this.props.series.times, this.props.series.values];
  }

  options(colours) {
    const written = this.props.series.unit === "By" ? bytes : count;
    return {
      legend: { show: false },
      padding: [6, 8, 0, 0],
      cursor: { ...this.pointer(), points: { size: 6 } },
      scales: {
        x: { time: true, range: () => [this.props.from, this.props.to] },
        y: { range: (_plot, low, high) => (low === null ? [0, 1] : [0, high * 1.1 || 1]) },
      },
      axes: this.axes(colours, written, this.props.series.unit === "By" ? BYTE_STEPS : null, 26),
      series: [{}, { stroke: colours.memory, width: 1.5, points: { show: false } }],
    };
  }
}
