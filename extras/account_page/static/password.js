// The dialog that changes the user's password, if the server offers it.

import { ApiError, callApi } from "./api.js";
import { onSubmit } from "./attempt.js";
import { find } from "./dom.js";
import { focusHeading } from "./key_list.js";
import { refresh } from "./keys.js";
import { clearErrors } from "./messages.js";

const dialog = find("#password");
const form = find("#password form");

function open() {
  form.elements.username.value = find("#who").textContent; // for password managers
  dialog.showModal();
}

async function changePassword(fields) {
  if (fields.new_password !== fields.repeated) {
    const error = { key: "repeated", message: "not_the_same" };
    throw new ApiError(400, { data: { errors: [error] } });
  }
  await callApi("POST", "/me/password", {
    password: fields.password,
    new_password: fields.new_password,
  });
  dialog.close();
  focusHeading();
  find("#done").textContent =
    "Your password is changed. Your other sessions have ended; your keys still work.";
}

function reset() {
  clearErrors(form);
  form.reset();
  refresh();
}

export function setUpPassword() {
  if (dialog === null) {
    return;
  }
  find("#change-password").addEventListener("click", open);
  find(".cancel", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", reset);
  onSubmit(form, changePassword, () => ({
    effect: "your password was changed",
    advice: "Try again, with the new password if the old one is refused.",
  }));
}
