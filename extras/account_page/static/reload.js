// What the page remembers when it reloads itself: its user's name, and why it reloads.

export function rememberUser(username) {
  sessionStorage.setItem("username", username);
}

export function rememberedUser() {
  return sessionStorage.getItem("username") ?? "";
}

export function forgetUser() {
  sessionStorage.removeItem("username");
}

/** Reload the page, so that nothing stays on the screen or in memory. */
export function leave(reason) {
  setReason(reason);
  location.reload();
}

/** Of several reasons, the first says most. */
export function setReason(reason) {
  if (sessionStorage.getItem("reason") === null) {
    sessionStorage.setItem("reason", reason);
  }
}

/** Why the page has reloaded itself, once; null when it has not. */
export function takeReason() {
  const reason = sessionStorage.getItem("reason");
  sessionStorage.removeItem("reason");
  return reason;
}
