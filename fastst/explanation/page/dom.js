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

/**
 * A pen for a canvas in CSS pixels, whatever the screen's own.
 * @param {HTMLCanvasElement} on
 * @returns {[CanvasRenderingContext2D, number, number]}
 */
export function penOf(on) {
  const [width, height, ratio] = [on.clientWidth || 1, on.clientHeight || 1, devicePixelRatio || 1];
  if (on.width !== Math.round(width * ratio) || on.height !== Math.round(height * ratio)) {
    [on.width, on.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  }
  const pen = /** @type {CanvasRenderingContext2D} */ (on.getContext("2d"));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [pen, width, height];
}
