// One key, in words.

import { keyPrefix } from "./settings.js";
import { daysUntil, formatDate, formatRelative } from "./time.js";

const ACCESS = { read: "Read", write: "Read and write" };
const DAYS_OF_WARNING = 14;

/** The part of the token that is no secret. */
export function publicPart(key) {
  return `${keyPrefix}_${key.key_public}…`;
}

/** The texts for the slots of a row or an item that shows this key. */
export function keyTexts(key) {
  const used = key.last_used_at ? formatRelative(key.last_used_at) : "";
  const from = key.last_used_ip ? `from ${key.last_used_ip}` : "";
  return {
    name: key.name,
    shown: publicPart(key),
    access: ACCESS[key.mode],
    used: used || "Never",
    from,
    use: used ? `Last used ${used} ${from}`.trim() : "Never used",
    expires: formatDate(key.expires_at),
    soon: expiresSoon(key) ? formatRelative(key.expires_at) : "",
    status: statusText(key),
  };
}

function expiresSoon(key) {
  return key.status === "active" && daysUntil(key.expires_at) < DAYS_OF_WARNING;
}

function statusText(key) {
  if (key.status === "revoked") {
    return `revoked ${formatRelative(key.revoked_at)}`;
  }
  if (key.status === "expired") {
    return `expired ${formatRelative(key.expires_at)}`;
  }
  return key.status;
}
