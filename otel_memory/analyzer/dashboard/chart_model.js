// Owns what the memory chart shows: which curves, how far into the future, which scale. Pure: numbers in, arrays out.

const FUTURE_POINTS = 24;
const FUTURE_MOST = 0.4; // of the range shown: the past is what was measured
const FUTURE_LEAST = 0.1;
const LIMIT_IN_VIEW = 3; // a limit up to so many times the highest value is the scale
const LEAST_SECONDS = 120; // a young process: its life fills the width, but not its first moments
const LEAST_SPAN = 0.1; // zoomed to the data, the scale still spans this share of the highest value

/** Lowest of the last `windowSeconds` at each time; null where the value itself is absent. */
export function rollingMinimum(times, values, windowSeconds) {
  const queue = []; // indices of rising values
  let head = 0;
  return values.map((value, index) => {
    if (value === null) return null;
    while (queue.length > head && values[queue.at(-1)] >= value) queue.pop();
    queue.push(index);
    while (times[queue[head]] < times[index] - windowSeconds) head += 1;
    return values[queue[head]];
  });
}

/** The value that `series` had last at each of `times`; null before its first. */
export function holdLast(series, times) {
  let at = -1;
  let last = null;
  return times.map((time) => {
    while (at + 1 < series.times.length && series.times[at + 1] <= time) {
      at += 1;
      if (series.values[at] !== null) last = series.values[at];
    }
    return last;
  });
}

const has = (series) => Boolean(series?.values.some((value) => value !== null));

export function floorWindow(rangeSeconds) {
  return Math.max(60, rangeSeconds / 20);
}

/** A line from the last reading to the limit in `after` seconds; level where nothing says that it is ever reached. */
const towards = (start, limit, after) => (elapsed) =>
  typeof after === "number" && after > 0 ? Math.min(limit, start + ((limit - start) * elapsed) / after) : start;

/** How many seconds of the future are shown: enough to see the limit reached where that is near. */
export function futureSeconds(forecast, rangeSeconds) {
  if (!forecast) return 0;
  return Math.min(rangeSeconds * FUTURE_MOST, Math.max(rangeSeconds * FUTURE_LEAST, forecast.estimate * 1.15));
}

/**
 * `memory` and `floor` are `{times, values}`; `limit` in bytes or null; `forecast` `{estimate, low, high}` or null;
 * `from`..`to` is the range asked for. Gives `{x, columns: {memory, floor, limit, forecast, soon, late}, from, to, high,
 * low, floorMeasured, limitInView}`; each column is as long as x.
 */
export function chartModel({ memory, floor, limit, forecast, from, to, zoom }) {
  const times = memory.times;
  const values = memory.values;
  const firstIndex = values.findIndex((value) => value !== null);
  const begin = firstIndex < 0 ? from : Math.max(from, Math.min(times[firstIndex], to - LEAST_SECONDS));
  const range = to - begin;
  let lastIndex = values.length - 1;
  while (lastIndex >= 0 && values[lastIndex] === null) lastIndex -= 1;
  const projected = Boolean(forecast && limit && lastIndex >= 0 && values[lastIndex] < limit);
  const future = projected ? futureSeconds(forecast, range) : 0;

  const ahead = [];
  if (projected) {
    const end = to + future;
    const start = times.at(-1);
    for (let step = 1; step <= FUTURE_POINTS; step += 1) ahead.push(start + ((end - start) * step) / FUTURE_POINTS);
  }
  const x = [...times, ...ahead];
  const blank = Array(ahead.length).fill(null);
  const floorMeasured = has(floor);
  const floorValues = floorMeasured ? holdLast(floor, times) : rollingMinimum(times, values, floorWindow(to - from));

  const past = Array(Math.max(0, lastIndex)).fill(null);
  const line = (after, stopAtLimit) => {
    if (!projected) return x.map(() => null);
    const start = values[lastIndex];
    const at = towards(start, limit, after);
    let reached = false;
    const column = [...past];
    for (let index = lastIndex; index < x.length; index += 1) {
      const value = at(x[index] - times[lastIndex]);
      column.push(reached && stopAtLimit ? null : value);
      reached = value >= limit;
    }
    return column;
  };
  const columns = {
    memory: [...values, ...blank],
    floor: [...floorValues, ...blank],
    forecast: line(forecast?.estimate, true),
    soon: line(forecast?.low, false),
    late: line(forecast?.high, false),
  };

  const shown = [...values, ...columns.forecast].filter((value) => value !== null);
  const highest = shown.length ? Math.max(...shown) : limit || 1;
  const lowest = shown.length ? Math.min(...shown) : 0;
  const limitInView = Boolean(limit) && !zoom && limit <= highest * LIMIT_IN_VIEW;
  let low = 0;
  let high = limitInView ? Math.max(limit * 1.06, highest * 1.03) : highest * 1.25;
  if (zoom) {
    const spare = Math.max((highest - lowest) * 0.08, (highest * LEAST_SPAN - (highest - lowest)) / 2);
    low = Math.max(0, lowest - spare);
    high = highest + spare;
  }
  columns.limit = x.map(() => (limit && limit <= high ? limit : null));
  return { x, columns, from: begin, to: to + future, low, high: high || 1, floorMeasured, limitInView: Boolean(limit && limit <= high), lastIndex };
}

/** A count that only rises as a rate; a gap, or a count that fell because it began anew, is a gap. */
export function perSecond({ times, values, ...rest }) {
  const rates = values.map((value, index) => {
    const before = values[index - 1] ?? null;
    return value === null || before === null || value < before ? null : (value - before) / (times[index] - times[index - 1]);
  });
  return { ...rest, times, values: rates };
}

/** Joins a live reading to a series of the range; what left the range goes. Gives the same object where nothing changed. */
export function append(series, time, value, from) {
  if (series.times.length && time <= series.times.at(-1)) return series;
  let cut = series.times.findIndex((at) => at >= from);
  if (cut < 0) cut = series.times.length;
  return { ...series, times: [...series.times.slice(cut), time], values: [...series.values.slice(cut), value] };
}
