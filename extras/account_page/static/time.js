// Times for people, reckoned by the server's clock: the browser's may be wrong.

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const UNITS = [
  { name: "day", seconds: DAY },
  { name: "hour", seconds: HOUR },
  { name: "minute", seconds: MINUTE },
];

const relativeFormat = new Intl.RelativeTimeFormat("en");
let millisecondsAhead = 0;

/** Learn the server's time from the `Date` header of an answer. */
export function setServerTime(dateHeader) {
  const difference = Date.parse(dateHeader) - Date.now();
  if (!Number.isNaN(difference)) {
    millisecondsAhead = difference;
  }
}

/** The server's time, in milliseconds since 1970. */
export function serverNow() {
  return Date.now() + millisecondsAhead;
}

/** How many days from now; below zero for what is over. */
export function daysUntil(time) {
  return secondsUntil(time) / DAY;
}

/** For example "3 Mar 2026". */
export function formatDate(time) {
  return new Date(time).toLocaleString("en-GB", { dateStyle: "medium" });
}

/** For example "3 Mar 2026, 14:05:09 CET". */
export function formatDateAndTime(time) {
  return new Date(time).toLocaleString("en-GB", {
    dateStyle: "medium",
    timeStyle: "long",
  });
}

/** For example "2 hours ago" or "in 5 days". */
export function formatRelative(time) {
  for (const unit of UNITS) {
    const count = secondsUntil(time) / unit.seconds;
    if (Math.abs(count) > 0.99) {
      return relativeFormat.format(Math.round(count), unit.name);
    }
  }
  return "just now";
}

/**
 * When a day starts in the browser's time zone, as the API takes it.
 * @param {string} date For example "2026-03-03".
 */
export function startOfDay(date, daysLater = 0) {
  const [year, month, day] = date.split("-").map(Number);
  const start = new Date(0);
  start.setFullYear(year, month - 1, day + daysLater);
  start.setHours(0, 0, 0, 0);
  return start.toISOString();
}

function secondsUntil(time) {
  return (new Date(time) - serverNow()) / 1000;
}
