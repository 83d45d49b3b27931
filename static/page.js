// The account page: it calls the JSON API, and sets text only ever as text.
const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const [login, filter, create, token, revoke] = all("#sign-in form, #filter, dialog");
const { prefix, longest, limit } = $("#account").dataset;
const seen = new Set(); // once shown as active: such a key stays in sight when it is revoked
let keys = [], chosen = null, page = 1, turn = 0, skew = 0, doubt = "";
const REASONS = {
  revoked: "used after it was revoked", expired: "used after it expired",
  wrong_secret: "used with a wrong secret", revoked_by_token: "by somebody who had the token",
  user_suspended: "used while suspended", operator: "by an operator", incorrect_password: "",
};
const REFUSALS = {
  required: "Please fill this in.", invalid: "This can’t be used here.",
  too_long: "This is too long.", out_of_range: `Choose 1 to ${longest} days.`,
  not_one_of: "Choose one of these.", incorrect_password: "This is not your password.",
  401: "User name or password is wrong.", 404: "There is no such key any more.",
  403: "Refused, because it seemed to come from another site.",
  "invalid token": "The browser kept no session: open this over https.",
  "service unavailable": "The server is busy, and nothing was changed. Please try again.",
  409: `All ${limit} active keys are in use. Revoke one to make room.`,
};

async function call(method, path, body) {
  const headers = { "Content-Type": "application/json" }, signal = AbortSignal.timeout(15000);
  const sent = fetch(`/api${path}`, { method, headers, signal, body: JSON.stringify(body) });
  const answer = await sent.catch(() => ({ status: 0 }));
  const said = await answer.json?.().catch(() => null); // null: a proxy spoke, not Latchkey
  skew = Date.parse(answer.headers?.get("Date")) - Date.now() || skew; // this clock may be wrong
  if (answer.ok && said) return said.data;
  const status = answer.ok ? 0 : answer.status, errors = said?.data?.errors ?? [];
  throw Object.assign(Error(said?.message), { status, errors, headers: answer.headers });
}

// Does `action`, whose effect is `what`; tells in `form` what goes wrong, or else above the keys.
async function attempt(action, form = $("#notice"), what = "", advice = "Please look again.") {
  if (form.ariaBusy && form !== $("#notice")) return; // pressed twice
  form.ariaBusy = "true";
  show(form, "");
  try {
    await action();
  } catch (problem) {
    if (problem.status === undefined) throw problem;
    const out = problem.status === 401 && form !== login, text = words(problem, what, advice);
    if (out) leave(`Your session ended${what && ` before ${what}`}. Please sign in again.`);
    else show(form.checkVisibility() ? form : $("#notice"), text, problem.errors);
  } finally {
    form.ariaBusy = null;
  }
}

function words({ status, message, headers, errors }, what, advice) {
  if (status === 400 && errors.length) return "";
  const minutes = Math.ceil(headers?.get("Retry-After") / 60);
  if (status === 429) return `Too many wrong passwords. Try again in ${minutes} min.`;
  if (message in REFUSALS || status in REFUSALS) return REFUSALS[message] ?? REFUSALS[status];
  const told = status ? `The server failed (${status}).` : "No answer came from the server.";
  if (what) doubt = `It is not known whether ${what}.`; // until the list was seen
  return `${told} ${doubt || "Nothing was changed."} ${advice}`;
}

function show(form, text, errors = []) {
  for (const it of all(".error, [aria-invalid]", form)) it.textContent = "", it.ariaInvalid = null;
  for (const { key, message } of errors) {
    const told = REFUSALS[message] ?? message, slot = $(`[data-error="${CSS.escape(key)}"]`, form);
    if (slot) slot.textContent = told;
    else text ||= told; // about something that this form has no field for
    $(`[aria-describedby~="${slot?.id}"]`, form)?.setAttribute("aria-invalid", "true");
  }
  $("[role=alert]", form).textContent = text;
  $("[aria-invalid]", form)?.focus();
}

function fill(node, texts) {
  for (const slot of all("[data-slot]", node)) slot.textContent = texts[slot.dataset.slot] ?? "";
  return node;
}
const copyOf = (id, texts) => fill($(id).content.cloneNode(true).firstElementChild, texts);
const secondsTo = (time) => (Date.parse(time) - Date.now() - skew) / 1000;
const date = (at, more) => new Date(at).toLocaleString("en-GB", { dateStyle: "medium", ...more });
const counted = new Intl.RelativeTimeFormat("en");
function relative(time) {
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    const count = secondsTo(time) / size;
    if (Math.abs(count) > 0.99) return counted.format(Math.round(count), unit);
  }
  return "just now";
}
function texts(key) {
  const near = key.status === "active" && secondsTo(key.expires_at) < 14 * 86400;
  const ended = { revoked: key.revoked_at, expired: key.expires_at }[key.status];
  const used = key.last_used_at && relative(key.last_used_at), from = `from ${key.last_used_ip}`;
  return {
    name: key.name, shown: `${prefix}_${key.key_public}…`,
    access: { read: "Read", write: "Read and write" }[key.mode],
    used: used ?? "Never", from: key.last_used_ip && from,
    use: used ? `Last used ${used} ${from}` : "Never used",
    expires: date(key.expires_at), soon: near ? relative(key.expires_at) : "",
    status: ended ? `${key.status} ${relative(ended)}` : key.status,
  };
}

function row(key) {
  const node = copyOf("#key-row", texts(key)), button = $("button", node);
  Object.assign(node.dataset, { id: key.id, status: key.status });
  Object.assign(button, { ariaLabel: `Revoke ${key.name}`, onclick: () => ask(key.id) });
  if (key.status !== "active") button.remove();
  return node;
}
const focusRow = (id) => ($(`tr[data-id="${id}"] button`) ?? $(`tr[data-id="${id}"]`))?.focus();

function render() {
  const held = document.activeElement.closest("tr")?.dataset.id;
  const alive = keys.filter((key) => key.status === "active");
  for (const key of alive) seen.add(key.id);
  const [near, ended] = [true, false].map((it) => keys.filter((key) => seen.has(key.id) === it));
  $("#active tbody").replaceChildren(...near.map(row));
  $("#ended tbody").replaceChildren(...ended.map(row));
  $("#dead summary").textContent = `Revoked and expired (${ended.length})`;
  $("#new-key").disabled = alive.length >= limit;
  $("#count").textContent = `${alive.length} of ${limit} active keys`;
  const select = filter.elements.api_key_id, { value } = select;
  const option = (key) => new Option(`${key.name} (${texts(key).shown})`, key.id);
  select.replaceChildren(select.options[0], ...keys.map(option));
  select.value = value;
  focusRow(held);
  if (revoke.open) ask(chosen);
}

const refresh = () => attempt(async () => {
  const mine = ++turn, found = [];
  for (let next = 1; next; ) {
    const { api_keys, pagination } = await call("GET", `/me/api-keys?page_size=100&page=${next}`);
    found.push(...api_keys);
    next = pagination.next_page;
  }
  if (mine !== turn) return; // a newer answer is on its way
  [keys, doubt] = [found, ""];
  render();
  await activity(page);
});

async function activity(to) {
  const wanted = [...new FormData(filter)].filter(([, value]) => value);
  const query = new URLSearchParams([...wanted, ["page", to], ["page_size", 10]]);
  const { audit, pagination: at } = await call("GET", `/me/api-keys/audit?${query}`);
  page = to;
  const rows = audit.map((it) => {
    const tried = it.event.endsWith("_failed") && `${it.method} ${it.path}`;
    const more = [REASONS[it.reason] ?? it.reason, tried].filter(Boolean).join(" · ");
    const what = $(`[value="${it.event}"]`, filter)?.text ?? it.event;
    const key = it.key_name ?? (it.event === "revoked" ? "A session" : "");
    const when = date(it.created_at, { timeStyle: "long" });
    return copyOf("#audit-row", { when, what, more, key, from: it.ip });
  });
  $("#audit tbody").replaceChildren(...rows);
  $(".pages span").textContent = rows.length ? `Page ${page} of ${at.total_pages}` : "Nothing yet.";
  [$("#newer").disabled, $("#older").disabled] = [!at.has_prev, !at.has_next];
}

async function enter() {
  const { username } = await call("GET", "/me");
  sessionStorage.user = $("#who").textContent = username;
  document.body.className = "in";
  login.reset();
  await refresh();
}

function leave(why) {
  sessionStorage.why ||= why;
  location.reload(); // nothing stays behind, on the screen or in memory
}

const aim = () => keys.filter((key) => (chosen ? key.id === chosen : key.status === "active"));
const names = () => aim().map((key) => `“${key.name}”`).join(", ");
function ask(id) {
  chosen = id; // null: every active key
  $("h2", revoke).textContent = `Revoke ${id ? names() : `all ${aim().length} active keys`}?`;
  $("ul", revoke).replaceChildren(...aim().map((key) => copyOf("#key-item", texts(key))));
  if (!revoke.open) revoke.showModal(), refresh(); // when it was last used may be news
}

function on(form, action, what = () => "", advice = undefined) {
  form.onsubmit = (event) => {
    event.preventDefault();
    $("#done").textContent = "";
    attempt(() => action(Object.fromEntries(new FormData(form))), form, what(), advice);
  };
  form.parentElement.onclose = () => {
    show(form, "");
    form.reset();
    refresh(); // whatever was seen or done in the dialog
    if (form.parentElement === revoke) focusRow(chosen);
  };
}

on(login, async (who) => {
  await call("POST", "/auth/login", { ...who, cookie: true });
  await enter();
  $("#account h1").focus();
}, () => "", "Please try again.");
on($("form", create), async ({ days, ...wanted }) => {
  wanted.expires_in_days = Number(days === "own" ? wanted.expires_in_days || NaN : days);
  const { name, token: secret } = await call("POST", "/me/api-keys", wanted);
  create.close();
  const curl = `curl -i -H 'Authorization: Bearer ${secret}' ${location.origin}/verify`;
  fill(token, { name, secret, curl }).showModal();
}, () => "the key was created", "Look at the list, and revoke a key whose token you never saw.");
on($("form", revoke), async () => {
  const ids = aim().map((key) => key.id), told = names(); // closing the dialog forgets them
  await call("DELETE", `/me/api-keys${chosen ? `/${chosen}` : ""}`);
  const now = { status: "revoked", revoked_at: new Date(Date.now() + skew) };
  for (const key of keys) if (ids.includes(key.id)) Object.assign(key, now);
  revoke.close();
  render();
  $("#account h1").focus();
  $("#done").textContent = `Revoked: ${told}. No request gets in any more.`;
}, () => `${names()} got revoked`, "Revoke again, which does no harm, or close this and look.");
for (const it of all(".cancel")) it.onclick = () => fill(it.closest("dialog"), {}).close();
for (const button of all(".copy button")) button.onclick = async () => {
  const code = button.previousElementSibling;
  getSelection().selectAllChildren(code); // to copy by hand where a script may not
  const done = navigator.clipboard.writeText(code.textContent);
  const told = await done.then(() => "Copied.", () => "Selected: copy it with Ctrl+C or ⌘C.");
  $("[role=status]", token).textContent = told;
};
window.onpagehide = () => fill(token, {}).close(); // not even for the way back
token.onclose = () => fill(token, {}) && $("#account h1").focus();
token.oncancel = (event) => event.preventDefault(); // Escape by mistake would lose the key
for (const id of ["#new-key", "#empty button"]) $(id).onclick = () => create.showModal();
$("#revoke-all").onclick = () => ask(null);
$("#notice button").onclick = () => refresh().then(() => $("#account h1").focus());
for (const it of all(".pages button")) it.onclick = () => attempt(() => activity(page + +it.value));
filter.onchange = () => attempt(() => activity(1));
document.onvisibilitychange = () => document.hidden || ($("body.in") && refresh());
$("#sign-out").onclick = () => attempt(async () => {
  await call("POST", "/auth/logout");
  delete sessionStorage.user;
  leave("You are signed out.");
}, undefined, "you were signed out", "Close the browser if others use it.");

enter().catch((problem) => {
  const { user = "", why = user && "Your session ended. Please sign in again." } = sessionStorage;
  document.body.className = "out";
  $("#why").textContent = problem.status === 401 ? why : sessionStorage.why ?? "";
  delete sessionStorage.why;
  login.elements.username.value = user;
  login.elements[user ? "password" : "username"].focus();
  if (problem.status !== 401) show(login, words(problem, "", "Please try again."));
});
