// Owns the shell: which view the address names, the header, the banner, what is read out. It knows no figures.

import { Alerts } from "./alerts.js";
import { Api } from "./api.js";
import { Fleet } from "./fleet.js";
import { Process } from "./process.js";
import { Sparks } from "./sparkline.js";
import { Store } from "./store.js";
import { Component, Failure, Notice, html, render } from "./ui.js";

const THEME_WORDS = { system: "System", light: "Light", dark: "Dark" };

/** "#/process/ab12?x=1" -> {view, id, parameters}. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?", 2);
  const [view = "", id = ""] = path.split("/").filter(Boolean);
  const parameters = new URLSearchParams(query);
  if (view === "process" && id) {
    try {
      return { view, id: decodeURIComponent(id), parameters };
    } catch {
      return { view: "nowhere", id: "", parameters };
    }
  }
  return { view: { "": "fleet", alerts: "alerts" }[view] ?? "nowhere", id: "", parameters };
}

class Banner extends Component {
  componentDidMount() {
    this.timer = setInterval(() => this.setState({}), 1000);
  }

  componentWillUnmount() {
    clearInterval(this.timer);
  }

  render({ retryAt, error, onRetry }) {
    const left = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    return html`<div class="banner" role="alert">
      <p><b>Connection lost.</b> ${error?.message ?? ""} What you see is the last known state.</p>
      <span class="again">${left ? `Next try in ${left} s` : "Trying…"}</span>
      <button type="button" onClick=${onRetry}>Try now</button>
    </div>`;
  }
}

class ThemeButton extends Component {
  render() {
    const theme = window.otelMemoryTheme.read();
    return html`<button type="button" class="theme" aria-label=${`Colours: ${THEME_WORDS[theme]}. Change`}
      onClick=${() => { window.otelMemoryTheme.next(); this.setState({}); }}>${THEME_WORDS[theme]}</button>`;
  }
}

class App extends Component {
  constructor(props) {
    super(props);
    this.state = { route: parse(location.hash) };
    this.fleetScroll = 0;
    this.fleetHash = "#/";
    this.sparks = new Sparks(props.api, () => this.redraw());
    props.store.onProcess((process) => this.sparks.append(process));
    props.store.subscribe(() => this.redraw());
    addEventListener("hashchange", () => this.went());
    addEventListener("keydown", (event) => this.pressed(event));
  }

  redraw() {
    this.setState({});
  }

  went() {
    const route = parse(location.hash);
    const before = this.state.route;
    if (before.view === "fleet" && route.view !== "fleet") this.fleetScroll = scrollY;
    if (route.view === "fleet") this.fleetHash = location.hash || "#/";
    this.setState({ route }, () => {
      if (before.view === route.view && before.id === route.id) return;
      scrollTo(0, route.view === "fleet" ? this.fleetScroll : 0);
      document.querySelector("main h1")?.focus({ preventScroll: true });
    });
  }

  setParameters(parameters) {
    const query = String(parameters);
    this.fleetHash = `#/${query ? `?${query}` : ""}`;
    history.replaceState(null, "", this.fleetHash);
    this.setState({ route: parse(this.fleetHash) });
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, textarea, select");
    if (event.key === "/" && !typing) {
      const filter = document.getElementById("filter");
      if (!filter) return;
      event.preventDefault();
      filter.focus();
    } else if (event.key === "Escape" && !typing && this.state.route.view !== "fleet") {
      location.hash = this.fleetHash;
    }
  }

  componentDidUpdate() {
    const { store } = this.props;
    const leaking = [...store.processes.values()].filter((process) => process.verdict === "leaking").length;
    const title = leaking ? `(${leaking} leaking) otel-memory` : "otel-memory";
    if (document.title !== title) document.title = title;
  }

  view({ view, id, parameters }) {
    const { store, api } = this.props;
    if (store.phase === "failed") {
      return html`<${Failure} error=${store.error} onRetry=${() => store.retry()} onToken=${(token) => store.useToken(token)} />`;
    }
    if (view === "process") return html`<${Process} key=${id} id=${id} store=${store} api=${api} back=${this.fleetHash} />`;
    if (store.phase === "loading") return html`<p class="boot">Loading the fleet…</p>`;
    if (view === "alerts") return html`<${Alerts} store=${store} api=${api} />`;
    if (view === "fleet") {
      return html`<${Fleet} store=${store} sparks=${this.sparks} parameters=${parameters}
        onParameters=${(next) => this.setParameters(next)} />`;
    }
    return html`<${Notice} title="There is no such page"><p><a href="#/">Go to the fleet</a></p><//>`;
  }

  render({ store }, { route }) {
    const firing = store.firing().length;
    const { state, retryAt, error } = store.connection;
    const here = (view) => (route.view === view ? "page" : undefined);
    return html`
      <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.querySelector("main h1, main")?.focus(); }}>Skip to content</a>
      <header>
        <a class="brand" href="#/"><img src="./icon.svg" alt="" width="24" height="24" />otel-memory</a>
        <nav aria-label="Views">
          <a href=${this.fleetHash} aria-current=${here("fleet")}>Fleet</a>
          <a href="#/alerts" aria-current=${here("alerts")}>Alerts${firing > 0 && html` <span class="badge">${firing}<span class="visually-hidden"> firing</span></span>`}</a>
        </nav>
        <div class="status">
          <span class=${`connection ${state}`}><span class="dot ${state}" aria-hidden="true"></span><span class="word">${
            { live: "Live", lost: "Offline" }[state] ?? "Connecting"}</span></span>
          <${ThemeButton} />
        </div>
      </header>
      ${state === "lost" && store.phase === "ready" && html`<${Banner} retryAt=${retryAt} error=${error} onRetry=${() => store.retry()} />`}
      <main id="main" tabindex="-1">${this.view(route)}</main>
      <div class="visually-hidden" role="status" aria-live="polite">${store.announcement}</div>`;
  }
}

const api = new Api();
const store = new Store(api);
const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} store=${store} api=${api} />`, root);
store.start();
