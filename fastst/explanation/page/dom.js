// Elements of the page by their names.

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`nothing is called ${id}`);
  return found;
}

/** @param {string} id @returns {HTMLInputElement} */
export function input(id) {
  return /** @type {HTMLInputElement} */ (byId(id));
}

/** @param {string} id @returns {HTMLSelectElement} */
export function select(id) {
  return /** @type {HTMLSelectElement} */ (byId(id));
}

/** @param {string} id @returns {HTMLCanvasElement} */
export function canvas(id) {
  return /** @type {HTMLCanvasElement} */ (byId(id));
}
