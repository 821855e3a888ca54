// Owns the colour scheme. A classic script in the head, so that a chosen scheme is there before the first paint.
"use strict";
(() => {
  const KEY = "otel-memory.theme";
  const ORDER = ["system", "light", "dark"];
  let memory = "system"; // where storage is forbidden the choice lasts as long as the page

  const read = () => {
    try {
      memory = localStorage.getItem(KEY) ?? memory;
    } catch {
      // storage forbidden
    }
    return ORDER.includes(memory) ? memory : "system";
  };

  const apply = () => {
    const theme = read();
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    window.dispatchEvent(new Event("themechange"));
  };

  const next = () => {
    memory = ORDER[(ORDER.indexOf(read()) + 1) % ORDER.length];
    try {
      localStorage.setItem(KEY, memory);
    } catch {
      // storage forbidden
    }
    apply();
    return memory;
  };

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  window.otelMemoryTheme = { read, next };
  apply();
})();
