// One key, in words.

import { keyPrefix } from "./settings.js";
import { daysUntil, formatRelative } from "./time.js";

const ACCESS = { read: "Read", write: "Read and write" };
export const DAYS_OF_WARNING = 14;

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
    created: formatRelative(key.created_at),
    never: used ? "" : "Never",
    from,
    use: used ? `Last used ${used} ${from}`.trim() : "Never used",
    expires: key.status === "active" ? formatRelative(key.expires_at) : "",
    status: key.status,
  };
}

/** When a key that is not active any more ended; null for an active one. */
export function endedAt(key) {
  if (key.status === "active") {
    return null;
  }
  return key.revoked_at ?? key.expires_at;
}

export function expiresSoon(key) {
  return key.status === "active" && daysUntil(key.expires_at) < DAYS_OF_WARNING;
}
