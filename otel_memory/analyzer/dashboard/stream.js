// Owns the live stream: server-sent events read through fetch, because EventSource can send no Authorization header.
// It reconnects for ever with growing pauses, and never decides what an event means.

const IDLE_SECONDS = 60; // a half-open connection says nothing; a new one costs nothing
const FIRST_PAUSE_SECONDS = 1;
const LONGEST_PAUSE_SECONDS = 15;

/** Takes text as it comes and gives `{event, data, id}` for each complete event (WHATWG HTML, 9.2.6). */
export class EventParser {
  constructor() {
    this.rest = "";
    this.lastId = "";
    this.reset();
  }

  reset() {
    this.event = "";
    this.data = [];
  }

  push(text) {
    const events = [];
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.data.length) events.push({ event: this.event || "message", data: this.data.join("\n"), id: this.lastId });
        this.reset();
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") this.event = value;
      else if (field === "data") this.data.push(value);
      else if (field === "id") this.lastId = value;
    }
    return events;
  }
}

export class Stream {
  /**
   * `onEvent({event, data})`, `onOpen(again)` (again: not the first time), `onLost({error, retryAt})` with retryAt in
   * ms of Date.now().
   */
  constructor(api, { onEvent, onOpen, onLost }) {
    Object.assign(this, { api, onEvent, onOpen, onLost });
    this.failures = 0;
    this.opened = false;
    this.lastId = "";
    this.stopped = false;
    this.wake = null;
  }

  start() {
    this.run();
  }

  stop() {
    this.stopped = true;
    this.abort?.abort();
    this.wake?.();
  }

  /** Cuts the pause before the next attempt short. */
  retryNow() {
    this.wake?.();
  }

  async run() {
    while (!this.stopped) {
      let error = null;
      try {
        await this.once();
      } catch (caught) {
        error = caught;
      }
      if (this.stopped) return;
      this.failures += 1;
      const longest = Math.min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (this.failures - 1));
      const pause = longest * (0.7 + 0.3 * Math.random()); // a fleet of pages must not come back in one instant
      this.onLost({ error, failures: this.failures, retryAt: Date.now() + pause * 1000 });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause * 1000);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.wake = null;
    }
  }

  async once() {
    this.abort = new AbortController();
    const headers = this.lastId ? { "Last-Event-ID": this.lastId } : {};
    const { signal } = this.abort;
    const response = await this.api.open("/stream", {}, { accept: "text/event-stream", signal, headers });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    const again = this.opened;
    this.opened = true;
    this.failures = 0;
    this.onOpen(again);
    let timer = null;
    try {
      for (;;) {
        clearTimeout(timer);
        timer = setTimeout(() => this.abort.abort(), IDLE_SECONDS * 1000);
        const { done, value } = await reader.read();
        if (done) return;
        for (const event of parser.push(value)) {
          this.lastId = event.id;
          this.onEvent(event);
        }
      }
    } finally {
      clearTimeout(timer);
      this.abort.abort();
    }
  }
}
