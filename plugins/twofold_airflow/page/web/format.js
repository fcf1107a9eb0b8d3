// Numbers and times as people read them. All times are UTC.

const number = new Intl.NumberFormat("en");
const MINUTE = 60, HOUR = 3600, DAY = 86400, YEAR = 365.25 * DAY;

export const count = (value) => (value === null || value === undefined ? "–" : number.format(value));

export const many = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** 2013-05-01 12:30 */
export const moment = (iso) => (iso ? iso.slice(0, 16).replace("T", " ") : "–");

/** 12:30:05 */
export const clock = (iso) => new Date(iso).toISOString().slice(11, 19);

/** A stretch of time in its largest unit: "3 min", "13 years". */
export function stretch(seconds) {
  const size = Math.abs(seconds);
  const of = (unit, name, plural = name) => {
    const whole = Math.round(size / unit);
    return `${number.format(whole)} ${whole === 1 ? name : plural}`;
  };
  if (size < 1.5 * MINUTE) return of(1, "s");
  if (size < 1.5 * HOUR) return of(MINUTE, "min");
  if (size < 2 * DAY) return of(HOUR, "h");
  if (size < 1.5 * YEAR) return of(DAY, "day", "days");
  return of(YEAR, "year", "years");
}

/** How long ago: "3 min ago". */
export const ago = (iso, now) => (iso ? `${stretch((Date.parse(now) - Date.parse(iso)) / 1000)} ago` : "never");
