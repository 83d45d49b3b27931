// The account page: it calls the JSON API. Start reading here.

import { setUpActivity } from "./activity.js";
import { setUpCreate } from "./create.js";
import { find } from "./dom.js";
import { focusHeading, refresh } from "./keys.js";
import { setUpRevoke } from "./revoke.js";
import { setUpSession, start } from "./session.js";
import { setUpToken } from "./token.js";

async function lookAgain() {
  await refresh();
  focusHeading();
}

function refreshWhenSeen() {
  if (!document.hidden && document.body.className === "in") {
    refresh();
  }
}

setUpSession();
setUpCreate();
setUpToken();
setUpRevoke();
setUpActivity();
find("#notice button").addEventListener("click", lookAgain);
document.addEventListener("visibilitychange", refreshWhenSeen);
start();
