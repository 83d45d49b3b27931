// What went wrong, in words, and where the page shows them.

import { find, findAll } from "./dom.js";
import { maxActiveKeys, maxExpiryDays } from "./settings.js";

const FIELD_ERRORS = {
  required: "Please fill this in.",
  invalid: "This can’t be used here.",
  too_long: "This is too long.",
  too_short: "Use at least 8 characters.",
  not_the_same: "This is not the same as above.",
  out_of_range: `Choose 1 to ${maxExpiryDays} days.`,
  not_one_of: "Choose one of these.",
  incorrect_password: "This is not your password.",
};
const ERROR_MESSAGES = {
  "invalid token": "The browser kept no session: open this over https.",
  "service unavailable":
    "The server is busy, and nothing was changed. Please try again.",
};
const STATUSES = {
  401: "User name or password is wrong.",
  403: "Refused, because it seemed to come from another site.",
  404: "There is no such key any more.",
  409: `All ${maxActiveKeys} active keys are in use. Revoke one to make room.`,
};

let doubt = "";

/** Forget which change may not have been made: the list of keys shows it now. */
export function clearDoubt() {
  doubt = "";
}

/**
 * What to tell about an ApiError.
 * @param {string} effect What the call was to change, such as "the key was created".
 * @param {string} advice What to do when it is not known whether it was changed.
 */
export function explain(error, effect, advice) {
  if (error.status === 400 && error.errors.length > 0) {
    return ""; // is shown beside the fields
  }
  if (error.status === 429) {
    const minutes = Math.ceil(error.retryAfter / 60);
    return `Too many wrong passwords. Try again in ${minutes} min.`;
  }
  const known = ERROR_MESSAGES[error.message] ?? STATUSES[error.status];
  return known ?? explainFailure(error.status, effect, advice);
}

function explainFailure(status, effect, advice) {
  if (effect) {
    doubt = `It is not known whether ${effect}.`;
  }
  const failure = status
    ? `The server failed (${status}).`
    : "No answer came from the server.";
  return `${failure} ${doubt || "Nothing was changed."} ${advice}`;
}

/** Show a text in the alert of a form, and each error of a field beside its field. */
export function showErrors(form, text, fieldErrors = []) {
  clearErrors(form);
  let alert = text;
  for (const error of fieldErrors) {
    const message = FIELD_ERRORS[error.message] ?? error.message;
    const isShown = showFieldError(form, error.key, message);
    if (!isShown && alert === "") {
      alert = message;
    }
  }
  find("[role=alert]", form).textContent = alert;
  find("[aria-invalid]", form)?.focus();
}

export function clearErrors(form) {
  find("[role=alert]", form).textContent = "";
  for (const place of findAll(".error", form)) {
    place.textContent = "";
  }
  for (const input of findAll("[aria-invalid]", form)) {
    input.removeAttribute("aria-invalid");
  }
}

/** Returns whether the form has such a field. */
function showFieldError(form, field, message) {
  const place = find(`[data-error="${CSS.escape(field)}"]`, form);
  if (place === null) {
    return false;
  }
  const input = find(`[aria-describedby~="${place.id}"]`, form);
  place.textContent = input.value === "" ? FIELD_ERRORS.required : message;
  input.setAttribute("aria-invalid", "true");
  return true;
}
