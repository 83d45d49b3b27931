// Signing in and out.

import { ApiError, callApi } from "./api.js";
import { attempt, onSubmit } from "./attempt.js";
import { find } from "./dom.js";
import { focusHeading } from "./key_list.js";
import { refresh } from "./keys.js";
import { explain, showErrors } from "./messages.js";
import {
  forgetUser,
  leave,
  rememberedUser,
  rememberUser,
  takeReason,
} from "./reload.js";

const ADVICE = "Please try again.";

const form = find("#sign-in form");

/** Show the account of who is signed in, or else the form to sign in. */
export async function start() {
  try {
    await enter();
  } catch (error) {
    if (!(error instanceof ApiError)) {
      throw error;
    }
    showSignIn(error);
  }
}

async function enter() {
  const user = await callApi("GET", "/me");
  rememberUser(user.username);
  find("#who").textContent = user.username;
  document.body.className = "in";
  form.reset();
  await refresh();
  document.dispatchEvent(new CustomEvent("signed-in", { detail: user }));
}

function showSignIn(error) {
  const username = rememberedUser();
  const sessionEnded = error.status === 401;
  let reason = takeReason();
  if (reason === null && sessionEnded && username !== "") {
    reason = "Your session ended. Please sign in again.";
  }
  document.body.className = "out";
  find("#why").textContent = reason ?? "";
  form.elements.username.value = username;
  const firstEmpty = username === "" ? "username" : "password";
  form.elements[firstEmpty].focus();
  if (!sessionEnded) {
    showErrors(form, explain(error, "", ADVICE));
  }
}

async function signIn(fields) {
  await callApi("POST", "/session", fields);
  await enter();
  focusHeading();
}

async function signOut() {
  await callApi("DELETE", "/session");
  forgetUser();
  leave("You are signed out.");
}

export function setUpSession() {
  onSubmit(form, signIn, () => ({ advice: ADVICE }));
  find("#sign-out").addEventListener("click", () => {
    attempt(signOut, {
      effect: "you were signed out",
      advice: "Close the browser if others use it.",
    });
  });
}
