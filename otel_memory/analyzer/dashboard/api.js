// Owns the talk with the analyzer's REST interface: paths, the token, the server's clock, errors in plain words.

const TOKEN_KEY = "otel-memory.token";

/** `status` is the HTTP status; 0 where the analyzer could not be reached at all. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function sentence(status, body) {
  const detail = typeof body?.detail === "string" ? body.detail : "";
  if (status === 401) return "The analyzer asks for an access token.";
  if (status === 403) return "The access token does not permit this.";
  if (status === 404) return detail || "The analyzer knows no such thing. It may have been forgotten since.";
  if (status === 429 || status === 503) return "The analyzer is overloaded at the moment.";
  return detail || `The analyzer answered with HTTP status ${status}.`;
}

export class Api {
  /** `base` is where the interface is mounted, relative to the page; `fetcher` and `now` (ms) are arguments for tests. */
  constructor({ base = "./api/v1", fetcher = (...args) => fetch(...args), now = () => Date.now() } = {}) {
    this.base = base;
    this.fetcher = fetcher;
    this.localNow = now;
    this.skewSeconds = 0;
    this.token = null;
    try {
      this.token = sessionStorage.getItem(TOKEN_KEY);
    } catch {
      // storage forbidden: the token lasts as long as the page
    }
  }

  setToken(token) {
    this.token = token;
    try {
      sessionStorage.setItem(TOKEN_KEY, token);
    } catch {
      // storage forbidden
    }
  }

  /** Seconds since the epoch by the server's clock, so that a wrong clock on this side makes no row look stale. */
  now() {
    return this.localNow() / 1000 + this.skewSeconds;
  }

  headers(accept) {
    const headers = { Accept: accept };
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    return headers;
  }

  /** The response, of a GET unless `method` says otherwise; throws ApiError. */
  async open(path, parameters = {}, { accept = "application/json", signal, headers = {}, method, body } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== null && value !== undefined && value !== "") query.set(name, value);
    }
    const address = `${this.base}${path}${query.size ? `?${query}` : ""}`;
    let response;
    try {
      response = await this.fetcher(address, {
        headers: { ...this.headers(accept), ...headers },
        signal,
        method,
        body,
        cache: "no-store",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "The analyzer can't be reached.");
    }
    const date = Date.parse(response.headers.get("date") ?? "");
    // The header counts whole seconds: differences below two are rounding and travel, not skew.
    if (!Number.isNaN(date)) {
      const skew = (date - this.localNow()) / 1000;
      this.skewSeconds = Math.abs(skew) < 2 ? 0 : skew;
    }
    if (!response.ok) {
      throw new ApiError(response.status, sentence(response.status, await response.json().catch(() => null)));
    }
    return response;
  }

  async get(path, parameters, options) {
    const response = await this.open(path, parameters, options);
    try {
      return await response.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(response.status, "The analyzer's answer can't be read. Is something else on this address?");
    }
  }

  /** One page: `{items, next}`. */
  processes(parameters, options) {
    return this.get("/processes", parameters, options);
  }

  process(id, options) {
    return this.get(`/processes/${encodeURIComponent(id)}`, {}, options);
  }

  /** `from` and `to` in seconds; gives `{metric, unit, times, values}` with times in seconds. */
  async series(id, { metric, from, to, points }, options) {
    const stamp = (time) => (time === undefined ? undefined : new Date(time * 1000).toISOString());
    const path = `/processes/${encodeURIComponent(id)}/series`;
    const body = await this.get(path, { metric, from: stamp(from), to: stamp(to), points }, options);
    const times = body.times.map((time) => (typeof time === "number" ? time : Date.parse(time) / 1000));
    return { metric: body.metric, unit: body.unit, times, values: body.values };
  }

  /** What the leaking instances of each service have in common. */
  async fleet(options) {
    return (await this.get("/fleet", {}, options)).items;
  }

  async alerts(options) {
    return (await this.get("/alerts", {}, options)).items;
  }

  async silences(options) {
    return (await this.get("/silences", {}, options)).items;
  }

  makeSilence(silence) {
    const headers = { "Content-Type": "application/json" };
    return this.get("/silences", {}, { method: "POST", headers, body: JSON.stringify(silence) });
  }

  endSilence(id) {
    return this.get(`/silences/${encodeURIComponent(id)}`, {}, { method: "DELETE" });
  }

  /** How each output of alerts fares. */
  async outputs(options) {
    return (await this.get("/summary", {}, options)).health.outputs;
  }
}
