// The list of the user's keys.

import { loadActivity, showKeysInFilter } from "./activity.js";
import { callApi } from "./api.js";
import { attempt } from "./attempt.js";
import { copyTemplate, find } from "./dom.js";
import { keyTexts } from "./key_texts.js";
import { clearDoubt } from "./messages.js";
import { maxActiveKeys } from "./settings.js";
import { serverNow } from "./time.js";

const seenActive = new Set(); // ids: such a key stays in sight when it is revoked
let keys = [];
let loads = 0;

export function allKeys() {
  return keys;
}

export function activeKeys() {
  return keys.filter((key) => key.status === "active");
}

/** Load the keys and the activity, and show them. */
export function refresh() {
  return attempt(loadAll);
}

async function loadAll() {
  loads += 1;
  const thisLoad = loads;
  const loaded = await loadKeys();
  if (thisLoad !== loads) {
    return; // a newer answer is on its way
  }
  keys = loaded;
  clearDoubt();
  render();
  await loadActivity();
}

async function loadKeys() {
  const loaded = [];
  let page = 1;
  while (page !== null) {
    const data = await callApi("GET", `/me/api-keys?page_size=100&page=${page}`);
    loaded.push(...data.api_keys);
    page = data.pagination.next_page;
  }
  return loaded;
}

/** Show these keys as revoked, before the list is loaded again. */
export function markRevoked(ids) {
  for (const key of keys) {
    if (ids.includes(key.id)) {
      key.status = "revoked";
      key.revoked_at = serverNow();
    }
  }
  render();
}

/** Show the list; the document's event "keys-changed" tells whoever shows keys too. */
function render() {
  const focusedId = document.activeElement.closest("tr")?.dataset.id;
  const active = activeKeys();
  for (const key of active) {
    seenActive.add(key.id);
  }
  const seen = keys.filter((key) => seenActive.has(key.id));
  const ended = keys.filter((key) => !seenActive.has(key.id));
  find("#active tbody").replaceChildren(...seen.map(keyRow));
  find("#ended tbody").replaceChildren(...ended.map(keyRow));
  find("#ended-keys summary").textContent = `Revoked and expired (${ended.length})`;
  find("#new-key").disabled = active.length >= maxActiveKeys;
  find("#count").textContent = `${active.length} of ${maxActiveKeys} active keys`;
  showKeysInFilter(keys);
  focusRow(focusedId);
  document.dispatchEvent(new Event("keys-changed"));
}

function keyRow(key) {
  const row = copyTemplate("#key-row", keyTexts(key));
  row.dataset.id = key.id;
  row.dataset.status = key.status;
  const button = find("button", row);
  button.setAttribute("aria-label", `Revoke ${key.name}`);
  if (key.status !== "active") {
    button.remove();
  }
  return row;
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
