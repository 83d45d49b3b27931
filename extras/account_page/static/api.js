// The client of the JSON API.

import { setServerTime } from "./time.js";

const TIMEOUT_MILLISECONDS = 15000;

/** A call that did not succeed; `status` is 0 when no answer came. */
export class ApiError extends Error {
  constructor(status, body, headers) {
    super(body?.message);
    this.status = status;
    this.errors = body?.data?.errors ?? [];
    this.retryAfter = Number(headers?.get("Retry-After"));
  }
}

/** Call the API and return the `data` of its answer. Throws ApiError. */
export async function callApi(method, path, body) {
  const response = await send(method, path, body);
  setServerTime(response.headers.get("Date"));
  const answer = await readJson(response);
  if (!response.ok) {
    throw new ApiError(response.status, answer, response.headers);
  }
  if (answer === null) {
    throw new ApiError(0); // a proxy answered, not Latchkey
  }
  return answer.data;
}

async function send(method, path, body) {
  try {
    return await fetch(`/api${path}`, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS),
    });
  } catch {
    throw new ApiError(0);
  }
}

async function readJson(response) {
  try {
    return await response.json();
  } catch {
    return null;
  }
}
