// Owns how what happened to a process is told: events that the analyzer keeps, and the changes of its alerts. Pure.

import { bytes, duration, growth, percent, seconds } from "./format.js";

const CROSSED = "otel_memory.threshold.crossed";
const RECOVERED = "otel_memory.threshold.recovered";
const MOST = 100;

function figure(value, unit) {
  if (typeof value !== "number") return "";
  if (unit === "By") return bytes(value);
  if (unit === "By/s") return growth(value);
  if (unit === "1") return percent(value);
  if (unit === "%") return percent(value / 100);
  return String(value);
}

function thresholdWords(name, attributes) {
  const unit = attributes["otel_memory.threshold.unit"];
  const rule = attributes["otel_memory.threshold.name"] ?? "unnamed";
  const value = figure(attributes["otel_memory.threshold.value"], unit);
  const bound = figure(attributes["otel_memory.threshold.bound"], unit);
  if (name === CROSSED) return `Threshold ${rule} crossed${value && `: ${value}`}${value && bound && `, over ${bound}`}`;
  const lasted = attributes["otel_memory.threshold.duration"];
  return `Threshold ${rule} recovered${typeof lasted === "number" ? ` after ${duration(lasted)}` : ""}${value && `, at ${value}`}`;
}

function told(event) {
  const attributes = event.attributes ?? {};
  if (event.name === CROSSED || event.name === RECOVERED) return thresholdWords(event.name, attributes);
  return event.body || event.name;
}

/** `{time, text, tone}` of each, newest first; what has no readable time is left out. */
export function eventsOf(events, alerts) {
  const list = events.map((event) => ({
    time: seconds(event.time),
    text: told(event),
    tone: event.name === CROSSED ? (event.attributes?.["otel_memory.threshold.severity"] ?? "warning") : "",
  }));
  for (const alert of alerts) {
    // The summary of a resolved alert speaks of its end.
    const began = alert.ends_at ? `Alert began (${alert.severity}): ${alert.name}` : `Alert (${alert.severity}): ${alert.summary}`;
    list.push({ time: seconds(alert.starts_at), text: began, tone: alert.severity });
    if (alert.ends_at) list.push({ time: seconds(alert.ends_at), text: `Alert resolved: ${alert.name}`, tone: "" });
  }
  return list.filter((event) => event.time !== null).sort((a, b) => b.time - a.time).slice(0, MOST);
}
