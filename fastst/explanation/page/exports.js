// What a reader takes away: a frame as a picture, the edges of a walk as a table.

/** @import { Page, Walk } from "./decode.js" */
/** @import { Shape } from "./figure.js" */
/** @import { Theme } from "./colors.js" */
import { probabilityOf } from "./decode.js";
import { paint } from "./figure.js";

const SVG = "http://www.w3.org/2000/svg"; // a name: nothing is asked for there
const LINE = 17; // pixels
const SHARP = 2; // pixels of a picture for one on the screen

/**
 * A picture that still says what it is of, and what may be said, when it has left the page.
 * @typedef {object} Plate
 * @property {Shape[]} shapes
 * @property {string[]} lines below them
 * @property {number} width
 * @property {number} height of the shapes
 * @property {Theme} theme
 */

/**
 * Words in lines of so many letters.
 * @param {string} words
 * @param {number} letters
 * @returns {string[]}
 */
export function wrapped(words, letters) {
  /** @type {string[]} */
  const lines = [];
  for (const word of words.split(/\s+/)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length < letters) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** @param {Plate} plate @returns {Shape[]} the lines, below the figure */
function written(plate) {
  return plate.lines.map((text, i) => ({ kind: "text", at: [plate.width / 2, plate.height + (i + 1) * LINE - 4], text, color: plate.theme.ink }));
}

/** @param {Plate} plate @returns {number} */
function tall(plate) {
  return plate.height + plate.lines.length * LINE + 6;
}

/** @param {Plate} plate @returns {Promise<Blob>} */
export function pngOf(plate) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [SHARP * plate.width, SHARP * tall(plate)];
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.scale(SHARP, SHARP);
  pen.fillStyle = plate.theme.paper;
  pen.fillRect(0, 0, plate.width, tall(plate));
  paint(pen, [...plate.shapes, ...written(plate)]);
  return new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large"))), "image/png"));
}

/** @param {Plate} plate @returns {Blob} */
export function svgOf(plate) {
  const root = element("svg", { viewBox: `0 0 ${plate.width} ${tall(plate)}`, width: plate.width, height: tall(plate) });
  const title = element("title", {});
  title.textContent = plate.lines.join(" ");
  root.append(title, element("rect", { width: "100%", height: "100%", fill: plate.theme.paper }));
  for (const shape of [...plate.shapes, ...written(plate)]) root.append(drawn(shape));
  return new Blob([new XMLSerializer().serializeToString(root)], { type: "image/svg+xml" });
}

/** @param {Shape} shape @returns {Element} */
function drawn(shape) {
  const color = "color" in shape ? shape.color : "none";
  if (shape.kind === "line") {
    const [x1, y1, x2, y2] = [...shape.from, ...shape.to].map(short);
    return element("line", { x1, y1, x2, y2, stroke: color, "stroke-width": short(shape.width), "stroke-linecap": "round" });
  }
  if (shape.kind === "taper") return element("polygon", { points: shape.points.map((point) => point.map(short).join(",")).join(" "), fill: color });
  const [x, y] = shape.at.map(short);
  if (shape.kind === "text") {
    const text = element("text", { x, y, fill: color, "font-size": 12, "font-family": "sans-serif", "text-anchor": "middle" });
    text.textContent = shape.text;
    return text;
  }
  if (shape.kind === "dot") return element("circle", { cx: x, cy: y, r: short(shape.radius), fill: color });
  return element("circle", { cx: x, cy: y, r: short(shape.radius), fill: "none", stroke: color, "stroke-width": short(shape.width) });
}

/** @param {number} value @returns {number} */
function short(value) {
  return Math.round(100 * value) / 100;
}

/** @param {string} name @param {Record<string, string | number>} attributes @returns {Element} */
function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, String(value));
  return made;
}

/**
 * The kept edges: frame in which an edge ends, from, to, frame offset, keep probability (within 1/508).
 * @param {Page} page
 * @param {Walk} walk
 * @returns {Blob}
 */
export function csvOf(page, walk) {
  const { joints, slots } = page.skeleton;
  const [src, dst, offset] = slots;
  const T = walk.form.frames;
  const rows = ["frame,from,to,offset,probability"];
  for (let t = 0; t < T; t++) {
    for (let slot = 0; slot < walk.form.slots; slot++) {
      const at = slot * T + t;
      if (!walk.kept[at]) continue;
      rows.push([t, quoted(joints[src[slot]]), quoted(joints[dst[slot]]), offset[slot], probabilityOf(walk.likely[at]).toFixed(3)].join(","));
    }
  }
  return new Blob([`${rows.join("\n")}\n`], { type: "text/csv" });
}

/** @param {string} text @returns {string} */
function quoted(text) {
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * Hands a file to the reader.
 * @param {Blob} content
 * @param {string} name
 */
export function hand(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name.replace(/[^\p{L}\p{N}.-]+/gu, "_").slice(-100);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
