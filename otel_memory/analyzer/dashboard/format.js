// Owns how numbers and times read to a person. Pure: no clock, no page. Absent (null) is "–", never 0.

export const ABSENT = "–";
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const THIN = "\u00a0"; // a number and its unit stay on one line

const present = (value) => typeof value === "number" && Number.isFinite(value);

/** Three significant digits, without a trailing ".0". */
export function digits(value) {
  const size = Math.abs(value);
  const text = size >= 99.95 ? value.toFixed(0) : size >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** Bytes in binary units, as limits are set: 536870912 -> "512 MiB". */
export function bytes(value) {
  if (!present(value)) return ABSENT;
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1023.5 && unit < BINARY.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(size) : digits(size)}${THIN}${BINARY[unit]}`;
}

/** Growth as a person paces it: per minute, or per hour where a minute shows too little. Decimal units, as rates are. */
export function growth(bytesPerSecond) {
  if (!present(bytesPerSecond)) return ABSENT;
  const sign = bytesPerSecond < 0 ? "\u2212" : "+";
  const perMinute = Math.abs(bytesPerSecond) * MINUTE;
  const perHour = Math.abs(bytesPerSecond) * HOUR;
  if (perHour < 500) return `0${THIN}MB/min`;
  if (perMinute >= 999.5e6) return `${sign}${digits(perMinute / 1e9)}${THIN}GB/min`;
  if (perMinute >= 99.5e3) return `${sign}${digits(perMinute / 1e6)}${THIN}MB/min`;
  if (perHour >= 99.5e3) return `${sign}${digits(perHour / 1e6)}${THIN}MB/h`;
  return `${sign}${digits(perHour / 1e3)}${THIN}kB/h`;
}

/** Growth without its plus sign, for sentences. */
export const pace = (bytesPerSecond) => growth(bytesPerSecond).replace(/^\+/, "");

export function percent(share) {
  if (!present(share)) return ABSENT;
  const value = share * 100;
  const text = value > 0 && value < 1 ? "<1" : value > 99 && value < 100 ? ">99" : String(Math.round(value));
  return `${text}${THIN}%`;
}

/** Finer where an hour is long: tenths up to four, halves up to ten. */
const roundedHours = (hours) => (hours < 4 ? Math.round(hours * 10) / 10 : hours < 10 ? Math.round(hours * 2) / 2 : Math.round(hours));

/** A span as [number, unit]; coarse, because it names forecasts and ages. */
function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 90) return [String(Math.round(s)), "s"];
  if (s < 90 * MINUTE) return [String(Math.round(s / MINUTE)), "min"];
  if (s < 36 * HOUR) return [digits(roundedHours(s / HOUR)), "h"];
  return [String(Math.round(s / DAY)), "d"];
}

const FOREVER = 60 * DAY; // past two months a forecast is no more than "not soon"

export function duration(seconds) {
  if (!present(seconds)) return ABSENT;
  if (seconds > FOREVER) return `>${THIN}60${THIN}d`;
  const [number, unit] = span(seconds);
  return `${number}${THIN}${unit}`;
}

/** "2–5 h", "40 min – 2 h", "2 h or more" (nothing bounds it above). */
export function interval(low, high) {
  if (!present(low)) return ABSENT;
  if (!present(high) || high > FOREVER) return `${duration(low)} or more`;
  const [lowNumber, lowUnit] = span(low);
  const [highNumber, highUnit] = span(high);
  if (lowUnit === highUnit && lowNumber === highNumber) return `${lowNumber}${THIN}${lowUnit}`;
  if (lowUnit === highUnit) return `${lowNumber}–${highNumber}${THIN}${highUnit}`;
  return `${lowNumber}${THIN}${lowUnit} – ${highNumber}${THIN}${highUnit}`;
}

/** RFC 3339 (or seconds) -> seconds since the epoch; null where it is neither. */
export function seconds(time) {
  if (present(time)) return time;
  if (typeof time !== "string") return null;
  const parsed = Date.parse(time);
  return Number.isNaN(parsed) ? null : parsed / 1000;
}

const pad = (number) => String(number).padStart(2, "0");

/** Local "14:02", with the day before it where that is not the day of `now` (seconds). */
export function clock(time, now) {
  const at = seconds(time);
  if (at === null) return ABSENT;
  const date = new Date(at * 1000);
  const today = new Date(now * 1000);
  const hours = `${pad(date.getHours())}:${pad(date.getMinutes())}`;
  return date.toDateString() === today.toDateString() ? hours : `${dayOf(date)} ${hours}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const dayOf = (date) => `${date.getDate()} ${MONTHS[date.getMonth()]}`;

/** Local date and time to the second, and UTC, for a title. */
export function exact(time) {
  const at = seconds(time);
  if (at === null) return "";
  const date = new Date(at * 1000);
  const local = `${dayOf(date)} ${date.getFullYear()}, ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return `${local} here · ${date.toISOString().replace(/\.\d+Z$/, "Z")}`;
}

/** Steps between the ticks of a byte axis: powers of two, so that labels are round in binary units. */
export const BYTE_STEPS = Array.from({ length: 51 }, (_, power) => 2 ** power);

/** A count: 1234567 -> "1.23 M". */
export function count(value) {
  if (!present(value)) return ABSENT;
  const size = Math.abs(value);
  if (size >= 1e9) return `${digits(value / 1e9)}${THIN}G`;
  if (size >= 1e6) return `${digits(value / 1e6)}${THIN}M`;
  if (size >= 1e4) return `${digits(value / 1e3)}${THIN}k`;
  return digits(value);
}
