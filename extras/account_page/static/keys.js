// The user's keys, as the API tells them.

import { loadActivity } from "./activity.js";
import { callApi } from "./api.js";
import { attempt } from "./attempt.js";
import { showKeys } from "./key_list.js";
import { clearDoubt } from "./messages.js";
import { setUpSort } from "./sort.js";
import { serverNow } from "./time.js";

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
  showKeys(keys);
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
  const now = new Date(serverNow()).toISOString();
  for (const key of keys) {
    if (ids.includes(key.id)) {
      key.status = "revoked";
      key.revoked_at = now;
    }
  }
  showKeys(keys);
}

export function setUpKeys() {
  setUpSort(() => showKeys(keys));
}
