// The dialog that revokes one key, or every active key.

import { callApi } from "./api.js";
import { onSubmit } from "./attempt.js";
import { copyTemplate, find } from "./dom.js";
import { focusHeading, focusRow } from "./key_list.js";
import { keyTexts } from "./key_texts.js";
import { activeKeys, allKeys, markRevoked, refresh } from "./keys.js";
import { clearErrors } from "./messages.js";

const dialog = find("#revoke");
const form = find("form", dialog);
let chosenId = null; // null: every active key

function chosenKeys() {
  if (chosenId === null) {
    return activeKeys();
  }
  return allKeys().filter((key) => key.id === chosenId);
}

function chosenNames() {
  const names = chosenKeys().map((key) => `“${key.name}”`);
  return names.join(", ");
}

function open(id) {
  chosenId = id;
  showChosenKeys();
  dialog.showModal();
  refresh(); // when they were last used may be news
}

function showChosenKeys() {
  const chosen = chosenKeys();
  const isOne = chosen.length === 1;
  const what = isOne ? chosenNames() : `all ${chosen.length} active keys`;
  find("h2", dialog).textContent = `Revoke ${what}?`;
  find(".solid", dialog).textContent = isOne
    ? "Revoke"
    : `Revoke ${chosen.length} keys`;
  find("ul", dialog).replaceChildren(...chosen.map(keyItem));
}

function keyItem(key) {
  return copyTemplate("#key-item", keyTexts(key));
}

async function revokeChosenKeys() {
  const ids = chosenKeys().map((key) => key.id);
  const names = chosenNames();
  const path = chosenId === null ? "/me/api-keys" : `/me/api-keys/${chosenId}`;
  await callApi("DELETE", path);
  dialog.close();
  markRevoked(ids);
  focusHeading();
  find("#done").textContent = `Revoked: ${names}. No request gets in any more.`;
}

function reset() {
  clearErrors(form);
  refresh();
  focusRow(chosenId);
}

function openForRow(event) {
  const button = event.target.closest("td button");
  if (button !== null) {
    open(button.closest("tr").dataset.id);
  }
}

export function setUpRevoke() {
  find("#active").addEventListener("click", openForRow);
  find("#revoke-all").addEventListener("click", () => open(null));
  find(".cancel", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", reset);
  document.addEventListener("keys-changed", () => {
    if (dialog.open) {
      showChosenKeys();
    }
  });
  onSubmit(form, revokeChosenKeys, () => ({
    effect: `${chosenNames()} got revoked`,
    advice: "Revoke again, which does no harm, or close this and look.",
  }));
}
