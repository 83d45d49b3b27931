// In which order the keys are shown: all of them are loaded, so the page sorts them.

import { findAll } from "./dom.js";

// What one click after another chooses; "none" is the server's order.
const ORDERS = {
  last_used_at: ["descending", "ascending", "none"],
  expires_at: ["ascending", "descending", "none"],
};

let chosenField = "expires_at";
let chosenOrder = "none";

/** These keys, sorted; a key that was never used was used longest ago. */
export function inChosenOrder(keys) {
  if (chosenOrder === "none") {
    return keys;
  }
  const sorted = keys.toSorted((one, other) => compare(one, other));
  return chosenOrder === "ascending" ? sorted : sorted.reverse();
}

/** Times of the API sort as texts. */
function compare(one, other) {
  const [first, second] = [one[chosenField] ?? "", other[chosenField] ?? ""];
  if (first === second) {
    return 0;
  }
  return first < second ? -1 : 1;
}

function choose(field) {
  const orders = ORDERS[field];
  const current = field === chosenField ? chosenOrder : "none";
  chosenField = field;
  chosenOrder = orders[(orders.indexOf(current) + 1) % orders.length];
  for (const head of findAll("[data-by]")) {
    const isChosen = head.dataset.by === field;
    head.setAttribute("aria-sort", isChosen ? chosenOrder : "none");
  }
}

/** @param {() => void} show Shows the keys again. */
export function setUpSort(show) {
  for (const head of findAll("[data-by]")) {
    head.addEventListener("click", () => {
      choose(head.dataset.by);
      show();
    });
  }
}
