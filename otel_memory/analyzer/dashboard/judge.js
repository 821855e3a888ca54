// Owns how processes and alerts are ranked, filtered and put into sentences. Pure; the verdict itself is the analyzer's.

import { ABSENT, bytes, clock, duration, interval, pace, percent, seconds } from "./format.js";

export const VERDICTS = ["leaking", "watch", "unknown", "healthy"];
export const VERDICT_WORDS = { leaking: "Leaking", watch: "Watch", unknown: "Too early", healthy: "Healthy" };
export const GONE_SECONDS = 900; // silent this long: the process has most likely ended

const SEVERITIES = ["critical", "warning", "info"];
const STATES = ["firing", "pending", "resolved"];
const rank = (list, value) => (list.indexOf(value) + list.length + 1) % (list.length + 1); // unheard-of values last

/** Coarse on purpose, in doublings: a rank that moved with every estimate would make rows jump under the reader's eye. */
function urgency(process) {
  const estimate = process.time_to_limit_seconds?.estimate;
  return typeof estimate === "number" ? Math.floor(Math.log2(Math.max(estimate, 60) / 60)) : 99;
}

const text = (value) => String(value ?? "");
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
// web-2 before web-10. A collator would do this too, but takes a tenth of a second over ten thousand rows.
const sortable = (name) => text(name).toLowerCase().replace(/\d+/g, (number) => number.padStart(12, "0"));

const keys = new WeakMap(); // a process is replaced as a whole, so what was derived from it stays true
function keyOf(process) {
  let key = keys.get(process);
  if (!key) {
    key = {
      name: `${sortable(process.service_name)}\u0000${sortable(process.service_instance_id)}\u0000${process.id}`,
      suspect: sortable(process.suspects?.[0]?.name || "\uffff"),
      seen: seconds(process.last_seen),
    };
    keys.set(process, key);
  }
  return key;
}
const byName = (a, b) => compare(keyOf(a).name, keyOf(b).name);

function bySeverity(now) {
  const gone = (process) => Number(now - (keyOf(process).seen ?? now) > GONE_SECONDS);
  return (a, b) =>
    gone(a) - gone(b) ||
    rank(VERDICTS, a.verdict) - rank(VERDICTS, b.verdict) ||
    urgency(a) - urgency(b) ||
    Math.round((b.leak_score ?? 0) * 5) - Math.round((a.leak_score ?? 0) * 5) ||
    byName(a, b);
}

/** Numbers compare with absent ones always last, whichever the direction. */
function byNumber(read, descending) {
  return (a, b) => {
    const left = read(a) ?? null;
    const right = read(b) ?? null;
    if (left === null || right === null) return Number(left === null) - Number(right === null) || byName(a, b);
    return (descending ? right - left : left - right) || byName(a, b);
  };
}

const NUMBERS = {
  memory: (p) => p.memory_bytes,
  use: (p) => p.utilization,
  growth: (p) => p.growth_bytes_per_second,
  limit: (p) => p.time_to_limit_seconds?.estimate,
};
export const FIRST_DIRECTION = { severity: "asc", service: "asc", limit: "asc", suspect: "asc" }; // others: desc

export function comparator({ key, direction }, now) {
  const descending = direction === "desc";
  if (NUMBERS[key]) return byNumber(NUMBERS[key], descending);
  const base =
    key === "service" ? byName
    : key === "suspect" ? (a, b) => compare(keyOf(a).suspect, keyOf(b).suspect) || byName(a, b)
    : bySeverity(now);
  return descending ? (a, b) => base(b, a) : base;
}

/** True where every word of `query` occurs in something that names the process or its verdict. */
export function matches(process, query, verdict) {
  if (verdict && process.verdict !== verdict) return false;
  if (!query) return true;
  const hay = [
    process.service_name, process.service_instance_id, process.service_version, process.host_name, process.runtime,
    process.verdict, VERDICT_WORDS[process.verdict], process.pid && `pid ${process.pid}`, process.suspects?.[0]?.name,
  ].join("\n").toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) => hay.includes(word));
}

export function byAlertUrgency(a, b) {
  return (
    rank(STATES, a.state) - rank(STATES, b.state) ||
    rank(SEVERITIES, a.severity) - rank(SEVERITIES, b.severity) ||
    (seconds(b.ends_at) ?? seconds(b.starts_at) ?? 0) - (seconds(a.ends_at) ?? seconds(a.starts_at) ?? 0)
  );
}

export const nameOf = (process) => process.service_name || "unnamed service";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** What tells instances apart to a person: a given name; of a made-up UUID only the start, after where it runs. */
export function instanceOf(process) {
  const id = process.service_instance_id;
  if (id && !UUID.test(id)) return id;
  const where = [process.host_name, process.pid && `pid ${process.pid}`].filter(Boolean);
  return where.length ? [...where, ...(id ? [id.slice(0, 8)] : [])].join(" · ") : id || process.id;
}

/** "about 3 h (2–5 h)", or "" where nothing is forecast. */
export function forecastWords(forecast) {
  if (!forecast || typeof forecast.estimate !== "number") return "";
  const range = typeof forecast.low === "number" ? ` (${interval(forecast.low, forecast.high)})` : "";
  return `about ${duration(forecast.estimate)}${range}`;
}

const suspectWords = (process) => {
  const first = process.suspects?.[0];
  return first ? `first suspect ${first.name}` : "";
};

/** The one sentence that tells what is wrong, how fast, until when and who; plain words. */
export function headline(process, now) {
  const growing = process.growth_bytes_per_second > 0 ? pace(process.growth_bytes_per_second) : "";
  const limit = process.limit_bytes ? `its ${bytes(process.limit_bytes)} limit` : "";
  const forecast = limit && process.time_to_limit_seconds ? `reaches ${limit} in ${forecastWords(process.time_to_limit_seconds)}` : "";
  const level = process.memory_bytes === null || process.memory_bytes === undefined ? ""
    : `${bytes(process.memory_bytes)}${process.utilization !== null && process.utilization !== undefined ? `, ${percent(process.utilization)} of ${limit}` : ""}`;
  let lead;
  if (process.verdict === "leaking") {
    const since = process.leaking_since ? ` since ${clock(process.leaking_since, now)}` : "";
    lead = `Leaking${growing ? ` ${growing}` : ""}${since}`;
  } else if (process.verdict === "watch") {
    lead = growing ? `Growing ${growing}; not yet certain that it leaks` : "Worth watching; not yet certain that it leaks";
  } else if (process.verdict === "healthy") {
    const course = { increasing: `rising${growing && ` (${growing})`}, now`, decreasing: "falling, now" }[process.trend] ?? "steady at";
    return `No leak found${level ? `: memory is ${course} ${level}` : ""}.`;
  } else {
    return `Too early to judge${process.first_seen ? `: seen since ${clock(process.first_seen, now)}` : ""}${level ? `; memory is ${level}` : ""}.`;
  }
  const rest = [forecast || (level ? `memory is ${level}` : ""), suspectWords(process)].filter(Boolean);
  return `${[lead, ...rest].join("; ")}.`;
}

const LIMIT_KINDS = { configured: "configuration", cgroup_v1: "cgroup v1", cgroup_v2: "cgroup v2", host: "the host's memory", jvm_heap: "-Xmx", go_memory_limit: "GOMEMLIMIT" };
/** What sets a limit, in words. */
export const limitKindWords = (kind) => LIMIT_KINDS[kind] ?? (kind ? String(kind) : ABSENT);
