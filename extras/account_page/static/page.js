// The account page: it calls the JSON API. Start reading here.

import { setUpActivity } from "./activity.js";
import { setUpCreate } from "./create.js";
import { find } from "./dom.js";
import { focusHeading } from "./key_list.js";
import { refresh, setUpKeys } from "./keys.js";
import { setUpPassword } from "./password.js";
import { setUpRevoke } from "./revoke.js";
import { setUpSession, start } from "./session.js";
import { setUpToken } from "./token.js";
import { setUpWhich } from "./which.js";

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
setUpPassword();
setUpKeys();
setUpWhich();
setUpActivity();
find("#notice button").addEventListener("click", lookAgain);
document.addEventListener("visibilitychange", refreshWhenSeen);
start();
