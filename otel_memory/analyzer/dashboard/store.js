// Owns what the page knows: processes, alerts, the state of the connection. Views read it and are told when it changed;
// nothing is drawn here. Events that come faster than the screen are gathered and applied together.

import { GONE_SECONDS, VERDICT_WORDS, instanceOf, nameOf } from "./judge.js";
import { seconds } from "./format.js";
import { Stream } from "./stream.js";

const PAGE_SIZE = 500;
const MOST_PROCESSES = 10_000;
const REFRESH_MS = 300_000; // forgotten processes leave the table at the latest after this
const FLEET_MS = 15_000;
const GATHER_MS = 200;
const TICK_MS = 5_000; // ages of rows are told in steps of seconds, not frames
const SILENT_INTERVALS = 3;
const SILENT_LEAST_SECONDS = 20;
const SILENT_UNKNOWN_SECONDS = 150; // 60 s is OpenTelemetry's default export interval

export class Store {
  constructor(api) {
    this.api = api;
    this.processes = new Map();
    this.alerts = new Map();
    this.fleet = []; // findings about services with several instances
    this.cadence = new Map(); // id -> seconds between the reports of a process, as seen
    this.phase = "loading"; // loading | ready | failed
    this.error = null;
    this.truncated = false;
    this.connection = { state: "connecting", retryAt: null }; // connecting | live | lost
    this.announcement = "";
    this.now = api.now();
    this.listeners = new Set();
    this.processListeners = new Set();
    this.pendingProcesses = new Map();
    this.pendingAlerts = new Map();
    this.gathering = null;
    this.lastFlush = 0;
    this.generation = 0;
    this.stream = new Stream(api, {
      onEvent: (event) => this.received(event),
      onOpen: (again) => this.opened(again),
      onLost: (loss) => this.lost(loss),
    });
  }

  start() {
    this.load();
    this.stream.start();
    setInterval(() => document.hidden || this.phase !== "ready" || this.load(), REFRESH_MS);
    setInterval(() => document.hidden || this.phase !== "ready" || this.compare(), FLEET_MS);
    setInterval(() => {
      this.now = this.api.now();
      this.changed();
    }, TICK_MS);
    addEventListener("online", () => this.stream.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.gather());
  }

  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** `listener(process)` for each process that the stream brought. */
  onProcess(listener) {
    this.processListeners.add(listener);
    return () => this.processListeners.delete(listener);
  }

  changed() {
    for (const listener of this.listeners) listener();
  }

  retry() {
    this.stream.retryNow();
    this.load();
  }

  useToken(token) {
    this.api.setToken(token);
    this.phase = "loading";
    this.changed();
    this.retry();
  }

  /** Reads every page of processes, and the alerts; what the stream brought meanwhile and is newer stays. */
  async load() {
    this.generation += 1;
    const mine = this.generation;
    const seen = new Set();
    try {
      const [alerts, first] = await Promise.all([this.api.alerts(), this.api.processes({ limit: PAGE_SIZE })]);
      if (mine !== this.generation) return;
      this.alerts = new Map(alerts.map((alert) => [alert.id, alert]));
      let page = first;
      for (;;) {
        for (const process of page.items) {
          seen.add(process.id);
          const known = this.processes.get(process.id);
          if (!known || !(seconds(known.last_seen) > seconds(process.last_seen))) this.processes.set(process.id, process);
        }
        const cursor = page.next ?? null;
        this.truncated = cursor !== null && seen.size >= MOST_PROCESSES;
        this.now = this.api.now();
        if (this.phase !== "ready" && page.items.length) this.becomeReady();
        this.changed();
        if (cursor === null || this.truncated) break;
        page = await this.api.processes({ limit: PAGE_SIZE, cursor });
        if (mine !== this.generation) return;
      }
      for (const [id, process] of this.processes) {
        const silent = this.now - (seconds(process.last_seen) ?? 0);
        if (!seen.has(id) && silent > SILENT_UNKNOWN_SECONDS && !this.truncated) this.forget(id);
      }
      this.becomeReady();
      this.compare();
    } catch (error) {
      if (mine !== this.generation) return;
      this.error = error;
      if (this.phase !== "ready" || error.status === 401) this.phase = "failed";
    }
    this.changed();
  }

  /** Reads what instances have in common; what was known stays where that fails. */
  async compare() {
    try {
      this.fleet = await this.api.fleet();
      this.changed();
    } catch {
      // the connection's state is told by the stream
    }
  }

  becomeReady() {
    this.phase = "ready";
    this.error = null;
  }

  forget(id) {
    this.processes.delete(id);
    this.cadence.delete(id);
  }

  opened(again) {
    this.connection = { state: "live", retryAt: null };
    // What happened while nobody listened is on no stream.
    if (again || this.phase === "failed") this.load();
    this.changed();
  }

  lost({ error, failures, retryAt }) {
    if (error?.status === 401) {
      this.phase = "failed";
      this.error = error;
    }
    // A server may end a stream at will: only the first attempt that fails too is a loss worth a banner.
    this.connection = { state: failures > 1 || error ? "lost" : "connecting", retryAt, error };
    this.changed();
  }

  received({ event, data }) {
    let item;
    try {
      item = JSON.parse(data);
    } catch {
      return; // one unreadable event must not end the stream
    }
    if (typeof item?.id !== "string") return;
    if (event === "process") this.pendingProcesses.set(item.id, item);
    else if (event === "alert") this.pendingAlerts.set(item.id, item);
    else return;
    this.gather();
  }

  /** Applies what is pending with the next frame; a hidden page has no frames and waits: only the latest of each stays. */
  gather() {
    if (this.gathering !== null) return;
    const wait = Math.max(0, this.lastFlush + GATHER_MS - performance.now());
    this.gathering = setTimeout(() => {
      const flush = () => {
        this.gathering = null;
        this.flush();
      };
      if (document.hidden) flush();
      else requestAnimationFrame(flush);
    }, wait);
  }

  flush() {
    this.lastFlush = performance.now();
    const verdicts = [];
    for (const process of this.pendingProcesses.values()) {
      const known = this.processes.get(process.id);
      if (known) {
        this.measureCadence(known, process);
        if (known.verdict !== process.verdict) verdicts.push(process);
      } else if (this.processes.size >= MOST_PROCESSES) {
        this.truncated = true;
        continue;
      }
      this.processes.set(process.id, process);
      for (const listener of this.processListeners) listener(process);
    }
    for (const alert of this.pendingAlerts.values()) this.alerts.set(alert.id, alert);
    this.announce(verdicts, [...this.pendingAlerts.values()].filter((alert) => alert.state === "firing"));
    this.pendingProcesses.clear();
    this.pendingAlerts.clear();
    this.now = this.api.now();
    if (this.phase === "loading" && this.processes.size) this.becomeReady();
    this.changed();
  }

  measureCadence(known, process) {
    const gap = seconds(process.last_seen) - seconds(known.last_seen);
    if (!(gap > 0)) return;
    const before = this.cadence.get(process.id);
    this.cadence.set(process.id, before === undefined ? gap : Math.max(gap, before * 0.9));
  }

  announce(verdicts, firing) {
    const parts = verdicts.length > 3
      ? [`${verdicts.length} processes changed their verdict.`]
      : verdicts.map((p) => `${nameOf(p)} ${instanceOf(p)}: ${VERDICT_WORDS[p.verdict] ?? p.verdict}.`);
    if (firing.length) parts.push(firing.length > 1 ? `${firing.length} alerts fire.` : `Alert: ${firing[0].summary}`);
    if (parts.length) this.announcement = parts.join(" ");
  }

  /** Seconds for which the process has been silent beyond its habit; null while it reports as usual. */
  silence(process) {
    const last = seconds(process.last_seen);
    if (last === null) return null;
    const cadence = this.cadence.get(process.id);
    const patience = cadence === undefined ? SILENT_UNKNOWN_SECONDS : Math.max(SILENT_LEAST_SECONDS, cadence * SILENT_INTERVALS);
    const age = this.now - last;
    return age > Math.min(patience, GONE_SECONDS) ? age : null;
  }

  firing() {
    return [...this.alerts.values()].filter((alert) => alert.state === "firing");
  }
}
