// The dialog that shows a new token, this once. It is nowhere else in the page.

import { fillSlots, find, findAll } from "./dom.js";
import { focusHeading } from "./key_list.js";

const dialog = find("#token");

export function showToken(name, secret) {
  const curl = `curl -i -H 'Authorization: Bearer ${secret}' ${location.origin}/verify`;
  fillSlots(dialog, { name, secret, curl });
  dialog.showModal();
}

function forgetToken() {
  fillSlots(dialog, {});
  dialog.close();
}

/** Copy the text that stands before the button. */
async function copy(button) {
  const code = button.previousElementSibling;
  getSelection().selectAllChildren(code); // to copy by hand where a script may not
  const told = find("[role=status]", dialog);
  try {
    await navigator.clipboard.writeText(code.textContent);
    told.textContent = "Copied.";
  } catch {
    told.textContent = "Selected: copy it with Ctrl+C or ⌘C.";
  }
}

export function setUpToken() {
  for (const button of findAll(".copy button", dialog)) {
    button.addEventListener("click", () => copy(button));
  }
  find(".cancel", dialog).addEventListener("click", forgetToken);
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault(); // Escape by mistake would lose the token
  });
  dialog.addEventListener("close", () => {
    forgetToken();
    focusHeading();
  });
  window.addEventListener("pagehide", forgetToken); // the way back would show it again
}
