// The dialog that creates a key.

import { callApi } from "./api.js";
import { onSubmit } from "./attempt.js";
import { find } from "./dom.js";
import { refresh } from "./keys.js";
import { clearErrors } from "./messages.js";
import { showToken } from "./token.js";

const dialog = find("#create");
const form = find("form", dialog);

async function createKey(fields) {
  const key = await callApi("POST", "/me/api-keys", {
    name: fields.name,
    mode: fields.mode,
    expires_in_days: daysWanted(fields),
    password: fields.password,
  });
  dialog.close();
  showToken(key.name, key.token);
}

/** 0, which the API refuses, when the user chose "Other" and typed no number. */
function daysWanted(fields) {
  const days = fields.days === "own" ? fields.expires_in_days : fields.days;
  return Number(days);
}

function reset() {
  clearErrors(form);
  form.reset();
  refresh();
}

export function setUpCreate() {
  find("#new-key").addEventListener("click", () => dialog.showModal());
  find("#empty button").addEventListener("click", () => dialog.showModal());
  find(".cancel", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", reset);
  onSubmit(form, createKey, () => ({
    effect: "the key was created",
    advice: "Look at the list, and revoke a key whose token you never saw.",
  }));
}
