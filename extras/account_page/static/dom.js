// Short names for what the other modules do with the document.

import { formatDateAndTime } from "./time.js";

export function find(selector, within = document) {
  return within.querySelector(selector);
}

export function findAll(selector, within = document) {
  return [...within.querySelectorAll(selector)];
}

/** Set the text, only ever as text, of each `data-slot` in the element. */
export function fillSlots(element, texts) {
  for (const slot of findAll("[data-slot]", element)) {
    slot.textContent = texts[slot.dataset.slot] ?? "";
  }
}

/** A copy of what a `<template>` holds, with these texts in its slots. */
export function copyTemplate(selector, texts) {
  const copy = find(selector).content.firstElementChild.cloneNode(true);
  fillSlots(copy, texts);
  return copy;
}

/**
 * Show a time in the `<time data-time>` of this name: the text, and the exact time on
 * hover and for screen readers. Without a time the element is removed.
 */
export function fillTime(element, name, time, format) {
  const place = find(`[data-time=${name}]`, element);
  if (time === null) {
    place.remove();
    return;
  }
  const exact = formatDateAndTime(time);
  place.dateTime = time;
  place.title = exact;
  place.textContent = format(time);
  if (place.textContent !== exact) {
    const unseen = document.createElement("span");
    unseen.className = "unseen";
    unseen.textContent = ` (${exact})`;
    place.append(unseen);
  }
}
