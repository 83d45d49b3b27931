// Signing in with the identity provider, and again before a key is created.

import { find } from "/static/account/dom.js";
import { showErrors } from "/static/account/messages.js";
import { rememberedUser, setReason, takeReason } from "/static/account/reload.js";

const BEGIN = "/login/oidc";
const section = find("#oidc");
const { name } = section.dataset;
const dialog = find("#create");
const form = find("form", dialog);

// Why the callback sent the browser back without a session.
const REASONS = {
  bad_token: `What ${name} answered could not be verified. Please try again.`,
  denied: `${name} did not sign you in.`,
  no_account: "You have no account here. Please ask your operator.",
  other_issuer: `Another identity provider answered than ${name}.`,
  other_state: "This sign-in had ended, or began in another browser. Please try again.",
  provider_failed: `${name} did not answer, or refused. Please try again later.`,
  suspended: "Your account is suspended. Please ask your operator.",
};

/** Say why the provider's page sent the browser back, once. */
function takeHash() {
  const reason = REASONS[location.hash.slice(1)];
  if (reason) {
    history.replaceState(null, "", "/");
    setReason(reason);
  }
}

/** After "Sign out", offer to sign out at the provider as well. */
function offerSignOut() {
  find(".note", section).hidden = sessionStorage.getItem("signing-out") === null;
  sessionStorage.removeItem("signing-out");
}

/** Keep what is filled in, and have the person sign in again. */
function stepUp() {
  const fields = Object.fromEntries(new FormData(form));
  sessionStorage.setItem("new-key", JSON.stringify([rememberedUser(), fields]));
  location.assign(`${BEGIN}?step_up`);
}

/** Open the form again, filled in as it was before the step-up, for the same person. */
function reopen(username) {
  const reason = takeReason() ?? "";
  const [owner, fields] = JSON.parse(sessionStorage.getItem("new-key")) ?? [];
  sessionStorage.removeItem("new-key");
  if (owner !== username) {
    find("#notice [role=alert]").textContent = reason;
    return;
  }
  for (const [field, value] of Object.entries(fields)) {
    form.elements[field].value = value;
  }
  dialog.showModal();
  showErrors(form, reason);
}

function enter({ detail: user }) {
  const password = find("[name=password]", form);
  password.disabled = !user.has_password;
  password.closest(".field").hidden = !user.has_password;
  find("#change-password")?.toggleAttribute("hidden", !user.has_password);
  reopen(user.username);
}

takeHash();
offerSignOut();
find("button", section).addEventListener("click", () => location.assign(BEGIN));
find("#sign-out").addEventListener("click", () => {
  sessionStorage.setItem("signing-out", "yes");
});
document.addEventListener("step-up", stepUp);
document.addEventListener("signed-in", enter);
