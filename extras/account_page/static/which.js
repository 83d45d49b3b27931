// "Which key is this?", answered from the list of keys: nothing is sent.

import { find, findAll } from "./dom.js";
import { publicPart } from "./key_texts.js";
import { allKeys } from "./keys.js";
import { keyPrefix } from "./settings.js";
import { formatRelative } from "./time.js";

const LEAST_CHARACTERS = 4; // fewer say too little
const PREFIX = new RegExp(`\\b${keyPrefix}_`);
const SESSION = `${keyPrefix}s_`;

const input = find("#which-key");
const answer = find("#which-answer");

/** The beginning of a key's public part: from the prefix to the secret or the end. */
function typedPart() {
  const text = input.value.trim();
  const start = PREFIX.exec(text);
  const bare = start ? text.slice(start.index + start[0].length) : text;
  return bare.split(/[^0-9A-Za-z]/)[0];
}

function matchingKeys() {
  const typed = typedPart();
  if (typed.length < LEAST_CHARACTERS) {
    return [];
  }
  return allKeys().filter((key) => key.key_public.startsWith(typed));
}

function answerText(keys) {
  if (input.value.includes(SESSION)) {
    return "This is the token of a session, not a key.";
  }
  if (typedPart().length < LEAST_CHARACTERS) {
    return "";
  }
  if (keys.length === 0) {
    return "None of your keys begins like this.";
  }
  if (keys.length > 1) {
    return `${keys.length} of your keys begin like this. They are marked in the list.`;
  }
  const [key] = keys;
  return `By its beginning this is “${key.name}”. ${stateText(key)}`;
}

function stateText(key) {
  if (key.status === "revoked") {
    return `It is not active: it was revoked ${formatRelative(key.revoked_at)}.`;
  }
  if (key.status === "expired") {
    return `It is not active: it expired ${formatRelative(key.expires_at)}.`;
  }
  return `It is active, and expires ${formatRelative(key.expires_at)}.`;
}

/** Mark the rows of the keys that the text may be. */
function mark() {
  const keys = matchingKeys();
  answer.textContent = answerText(keys);
  const ids = keys.map((key) => key.id);
  for (const row of findAll("tr[data-id]")) {
    row.toggleAttribute("data-found", ids.includes(row.dataset.id));
  }
}

function look() {
  mark();
  const found = findAll("[data-found]");
  if (found.some((row) => row.closest("#ended-keys"))) {
    find("#ended-keys").open = true;
  }
  forgetSecret();
}

/** Keep no more of a whole token than the part that is no secret. */
function forgetSecret() {
  const [key] = matchingKeys();
  const typed = typedPart();
  if (key?.key_public === typed && !input.value.endsWith(typed)) {
    input.value = publicPart(key);
  }
}

function forget() {
  input.value = "";
  mark();
}

export function setUpWhich() {
  input.addEventListener("input", look);
  document.addEventListener("keys-changed", mark);
  window.addEventListener("pagehide", forget);
}
