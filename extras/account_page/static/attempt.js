// Doing what may fail, and saying so.

import { ApiError } from "./api.js";
import { find } from "./dom.js";
import { clearErrors, explain, showErrors } from "./messages.js";
import { leave } from "./reload.js";

const notice = find("#notice"); // above the list of keys

/**
 * Do something that calls the API. What goes wrong is told in the form, or above the
 * list of keys when the form is not on the screen.
 * @param {() => Promise<void>} action
 * @param {object} options
 * @param {HTMLElement} [options.form]
 * @param {string} [options.effect] What it changes, such as "the key was created".
 * @param {string} [options.advice] What to do when it may or may not have changed.
 */
export async function attempt(action, options = {}) {
  const { form = notice, effect = "", advice = "Please look again." } = options;
  form.setAttribute("aria-busy", "true");
  clearErrors(form);
  try {
    await action();
  } catch (error) {
    if (!(error instanceof ApiError)) {
      throw error;
    }
    if (error.errors.some(({ key }) => key === "step_up")) {
      document.dispatchEvent(new Event("step-up"));
    } else if (error.status === 401 && document.body.className === "in") {
      leaveEndedSession(effect);
    } else {
      const text = explain(error, effect, advice);
      const place = form.checkVisibility() ? form : notice;
      showErrors(place, text, error.errors);
    }
  } finally {
    form.removeAttribute("aria-busy");
  }
}

function leaveEndedSession(effect) {
  const before = effect ? ` before ${effect}` : "";
  leave(`Your session ended${before}. Please sign in again.`);
}

/**
 * Attempt an action with the fields of a form whenever the form is submitted.
 * @param {HTMLFormElement} form
 * @param {(fields: object) => Promise<void>} action
 * @param {() => {effect?: string, advice?: string}} describe Options of the attempt.
 */
export function onSubmit(form, action, describe) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (form.hasAttribute("aria-busy")) {
      return; // pressed twice
    }
    find("#done").textContent = "";
    const fields = Object.fromEntries(new FormData(form));
    attempt(() => action(fields), { form, ...describe() });
  });
}
