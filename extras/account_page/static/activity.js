// What happened to the user's keys and account, a page at a time.

import { callApi } from "./api.js";
import { attempt } from "./attempt.js";
import { copyTemplate, fillTime, find } from "./dom.js";
import { publicPart } from "./key_texts.js";
import { formatDateAndTime, formatRelative, startOfDay } from "./time.js";

const PAGE_SIZE = 10;
const REASONS = {
  revoked: "used after it was revoked",
  expired: "used after it expired",
  wrong_secret: "used with a wrong secret",
  revoked_by_token: "by somebody who had the token",
  user_suspended: "used while suspended",
  operator: "by an operator",
  insufficient_scope: "used for what it may not do",
  password: "with the password",
  oidc: "by the identity provider",
  incorrect_password: "", // the event says it
};

const filter = find("#filter");
const newer = find("#newer");
const older = find("#older");
let currentPage = 1;

/** Load a page of the activity that the filter lets through, and show it. */
export async function loadActivity(page = currentPage) {
  const query = new URLSearchParams({ ...filters(), page, page_size: PAGE_SIZE });
  const { audit, pagination } = await callApi("GET", `/me/api-keys/audit?${query}`);
  currentPage = page;
  find("#audit tbody").replaceChildren(...audit.map(entryRow));
  find(".pages span").textContent =
    audit.length > 0 ? `Page ${page} of ${pagination.total_pages}` : "Nothing found.";
  newer.disabled = !pagination.has_prev;
  older.disabled = !pagination.has_next;
}

/** What the filter's fields ask for; the last day ends where the next one starts. */
function filters() {
  const wanted = Object.fromEntries(new FormData(filter));
  if (wanted.since !== "") {
    wanted.since = startOfDay(wanted.since);
  }
  if (wanted.until !== "") {
    wanted.until = startOfDay(wanted.until, 1);
  }
  const filled = Object.entries(wanted).filter(([, value]) => value !== "");
  return Object.fromEntries(filled);
}

function entryRow(entry) {
  const row = copyTemplate("#audit-row", {
    ago: formatRelative(entry.created_at),
    what: eventText(entry.event),
    more: detailText(entry),
    key: entry.key_name ?? (entry.event === "revoked" ? "A session" : ""),
    from: entry.ip,
  });
  fillTime(row, "created_at", entry.created_at, formatDateAndTime);
  return row;
}

/** As the filter calls the event. */
function eventText(event) {
  return find(`[value="${event}"]`, filter)?.text ?? event;
}

function detailText(entry) {
  const details = [];
  const reason = REASONS[entry.reason] ?? entry.reason;
  if (reason) {
    details.push(reason);
  }
  if (entry.event.endsWith("_failed")) {
    details.push(`${entry.method} ${entry.path}`);
  }
  return details.join(" · ");
}

/** Offer these keys in the filter, and leave chosen what is chosen. */
export function showKeysInFilter(keys) {
  const select = filter.elements.api_key_id;
  const chosen = select.value;
  const allKeys = select.options[0];
  select.replaceChildren(allKeys, ...keys.map(keyOption));
  select.value = chosen;
}

function keyOption(key) {
  return new Option(`${key.name} (${publicPart(key)})`, key.id);
}

function showPage(page) {
  attempt(() => loadActivity(page));
}

export function setUpActivity() {
  filter.addEventListener("change", () => showPage(1));
  newer.addEventListener("click", () => showPage(currentPage - 1));
  older.addEventListener("click", () => showPage(currentPage + 1));
}
