// Short names for what the other modules do with the document.

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
