// Colours of both themes, and those that stand for numbers.

/**
 * @typedef {object} Theme
 * @property {boolean} dark
 * @property {string} ink
 * @property {string} soft
 * @property {string} paper
 * @property {string} line
 * @property {string} accent
 * @property {[string, string, string]} bones left, middle, right
 * @property {string} ghost
 */

/** @typedef {[number, number, number]} Rgb */

/** @type {Rgb[]} */
const LIKELY_ON_LIGHT = [[253, 214, 130], [246, 142, 60], [210, 62, 70], [126, 22, 90], [46, 8, 66]];
/** @type {Rgb[]} */
const LIKELY_ON_DARK = [[92, 44, 92], [176, 48, 88], [236, 100, 62], [252, 176, 60], [252, 250, 180]];
/** @type {Rgb[]} */
const AROUND_ON_LIGHT = [[20, 90, 180], [130, 175, 225], [190, 190, 190], [240, 150, 120], [190, 20, 40]];
/** @type {Rgb[]} */
const AROUND_ON_DARK = [[110, 180, 255], [70, 120, 180], [100, 100, 104], [210, 110, 80], [255, 130, 110]];

/** @returns {Theme} */
export function currentTheme() {
  const style = getComputedStyle(document.documentElement);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const named = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  return {
    dark,
    ink: named("--ink"),
    soft: named("--soft"),
    paper: named("--panel"),
    line: named("--line"),
    accent: named("--accent"),
    bones: dark ? ["#5f6b7c", "#788394", "#929dad"] : ["#d3d9e0", "#bac2cc", "#9aa4b1"],
    ghost: dark ? "#39424e" : "#e3e7ec",
  };
}

/**
 * Between colours that are evenly spread over 0 to 1.
 * @param {Rgb[]} stops
 * @param {number} share
 * @returns {Rgb}
 */
function between(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const mix = at - low;
  return /** @type {Rgb} */ (stops[low].map((value, i) => Math.round(value + mix * (stops[low + 1][i] - value))));
}

/**
 * @param {Theme} theme
 * @param {string} mode
 * @param {number} value a probability; or, against something, a difference of two
 * @returns {Rgb}
 */
export function colorOf(theme, mode, value) {
  if (mode === "kept") return between(theme.dark ? LIKELY_ON_DARK : LIKELY_ON_LIGHT, value);
  return between(theme.dark ? AROUND_ON_DARK : AROUND_ON_LIGHT, 0.5 + value);
}

/** @param {Rgb} rgb @param {number} alpha @returns {string} */
export function css(rgb, alpha = 1) {
  return alpha === 1 ? `rgb(${rgb.join(", ")})` : `rgba(${rgb.join(", ")}, ${alpha})`;
}
