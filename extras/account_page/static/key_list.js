// The list of the user's keys on the screen.

import { showKeysInFilter } from "./activity.js";
import { copyTemplate, fillTime, find } from "./dom.js";
import { DAYS_OF_WARNING, endedAt, expiresSoon, keyTexts } from "./key_texts.js";
import { maxActiveKeys } from "./settings.js";
import { inChosenOrder } from "./sort.js";
import { formatDate, formatRelative } from "./time.js";

const seenActive = new Set(); // ids: such a key stays in sight when it is revoked

/** Show these keys; the document's event "keys-changed" tells whoever shows keys too. */
export function showKeys(keys) {
  const focusedId = document.activeElement.closest("tr")?.dataset.id;
  const active = keys.filter((key) => key.status === "active");
  for (const key of active) {
    seenActive.add(key.id);
  }
  const sorted = inChosenOrder(keys);
  const seen = sorted.filter((key) => seenActive.has(key.id));
  const ended = sorted.filter((key) => !seenActive.has(key.id));
  find("#active tbody").replaceChildren(...seen.map(keyRow));
  find("#ended tbody").replaceChildren(...ended.map(keyRow));
  find("#ended-keys summary").textContent = `Revoked and expired (${ended.length})`;
  find("#new-key").disabled = active.length >= maxActiveKeys;
  find("#revoke-all").textContent = `Revoke all (${active.length})`;
  find("#count").textContent = `${active.length} of ${maxActiveKeys} active keys`;
  find("#expiring").textContent = expiringText(active.filter(expiresSoon));
  showKeysInFilter(keys);
  focusRow(focusedId);
  document.dispatchEvent(new Event("keys-changed"));
}

function keyRow(key) {
  const row = copyTemplate("#key-row", keyTexts(key));
  row.dataset.id = key.id;
  row.dataset.status = key.status;
  fillTime(row, "created_at", key.created_at, formatDate);
  fillTime(row, "last_used_at", key.last_used_at, formatRelative);
  fillTime(row, "expires_at", key.expires_at, formatDate);
  fillTime(row, "ended_at", endedAt(key), formatRelative);
  find("[data-slot=expires]", row).classList.toggle("soon", expiresSoon(key));
  const button = find("button", row);
  button.setAttribute("aria-label", `Revoke ${key.name}`);
  if (key.status !== "active") {
    button.remove();
  }
  return row;
}

/** What to say on top about the keys that expire soon; nothing if there are none. */
function expiringText(keys) {
  if (keys.length === 0) {
    return "";
  }
  const first = keys.reduce((a, b) => (a.expires_at < b.expires_at ? a : b));
  const when = `“${first.name}” expires ${formatRelative(first.expires_at)}.`;
  const many = `${keys.length} keys expire within ${DAYS_OF_WARNING} days.`;
  const which = keys.length === 1 ? when : `${many} The first: ${when}`;
  return `${which} Create a new key to take its place in time.`;
}

export function focusRow(id) {
  const row = find(`tr[data-id="${id}"]`);
  if (row !== null) {
    const target = find("button", row) ?? row;
    target.focus();
  }
}

export function focusHeading() {
  find("#account h1").focus();
}
