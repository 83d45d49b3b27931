// The settings of the server that the page needs; its template writes them down.

const { dataset } = document.querySelector("#account");

export const keyPrefix = dataset.prefix;
export const maxActiveKeys = Number(dataset.maxActiveKeys);
export const maxExpiryDays = Number(dataset.maxExpiryDays);
