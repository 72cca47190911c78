// All edges of a walk, row by row, over its frames.

/** @import { Skeleton, Walk } from "./decode.js" */
/** @import { Look } from "./figure.js" */
import { probabilityOf } from "./decode.js";
import { colorOf } from "./colors.js";
import { valueOf } from "./figure.js";

export const GUTTER = 112; // pixels, for names of joints
export const FOOT = 18; // pixels, for frames
const MOST_COLUMNS = 2048;
const PALE = 70; // of 255: edges that were not kept

/**
 * Rows of a joint that an edge leaves stand together: those of joints that keep most first, others along the limbs.
 * @param {Skeleton} skeleton
 * @param {Float64Array} shares that joints keep; NaN where that is not known  # [J]
 * @returns {number[]} slots
 */
export function rowOrder(skeleton, shares) {
  const [src, dst, offset] = skeleton.slots;
  const place = new Map(skeleton.order.map((joint, i) => [joint, i]));
  const at = (/** @type {number} */ joint) => place.get(joint) ?? joint;
  const share = (/** @type {number} */ slot) => Math.round(1e6 * shares[src[slot]]) || 0; // alike but for rounding: along the limbs
  return src.map((_, slot) => slot).sort((a, b) => share(b) - share(a) || at(src[a]) - at(src[b]) || at(dst[a]) - at(dst[b]) || offset[a] - offset[b]);
}

/**
 * The cells as a picture, one pixel a cell; of a long walk several frames a pixel, of which the likeliest kept edge is shown.
 * @param {Walk} walk
 * @param {number[]} order
 * @param {Look} look
 * @returns {HTMLCanvasElement | null}
 */
export function cells(walk, order, look) {
  const { frames: T, slots: P } = walk.form;
  if (!P || !T) return null;
  const columns = Math.min(T, MOST_COLUMNS);
  const picture = new ImageData(columns, P);
  for (let row = 0; row < P; row++) {
    const slot = order[row];
    for (let column = 0; column < columns; column++) {
      const best = likeliest(walk, slot, Math.floor((column * T) / columns), Math.max(Math.floor(((column + 1) * T) / columns), 1));
      if (best < 0) continue;
      const byte = walk.likely[best];
      const [r, g, b] = colorOf(look.theme, look.mode, valueOf(byte, slot, walk, look));
      const shown = walk.kept[best] && probabilityOf(byte) >= look.above;
      picture.data.set([r, g, b, shown ? 255 : look.mode === "kept" ? Math.round(PALE * probabilityOf(byte)) : 0], 4 * (row * columns + column));
    }
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, P];
  canvas.getContext("2d")?.putImageData(picture, 0, 0);
  return canvas;
}

/**
 * @param {Walk} walk
 * @param {number} slot
 * @param {number} first
 * @param {number} end
 * @returns {number} place of the cell; -1 where there is no edge
 */
function likeliest(walk, slot, first, end) {
  let found = -1;
  let most = 0;
  for (let at = slot * walk.form.frames + first; at < slot * walk.form.frames + end; at++) {
    const rank = walk.likely[at] + 256 * walk.kept[at];
    if (rank > most) {
      most = rank;
      found = at;
    }
  }
  return found;
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {HTMLCanvasElement | null} picture of `cells`
 * @param {Walk} walk
 * @param {number[]} order
 * @param {Look} look
 * @param {number} frame
 * @param {number} width
 * @param {number} height
 */
export function paintRaster(pen, picture, walk, order, look, frame, width, height) {
  pen.clearRect(0, 0, width, height);
  if (!picture) return;
  const [across, down] = [width - GUTTER, height - FOOT];
  const { frames: T, slots: P } = walk.form;
  pen.imageSmoothingEnabled = picture.width > across || P > down;
  pen.drawImage(picture, GUTTER, 0, across, down);
  nameRows(pen, order, look, down);
  const marked = look.hover >= 0 ? look.hover : look.pinned;
  if (marked >= 0) {
    const row = order.indexOf(marked);
    const tall = Math.max(down / P, 3);
    pen.strokeStyle = look.theme.accent;
    pen.lineWidth = 1.5;
    pen.strokeRect(GUTTER, ((row + 0.5) * down) / P - tall / 2 - 1, across - 1, tall + 2);
  }
  const x = GUTTER + ((frame + 0.5) * across) / T;
  pen.fillStyle = look.theme.accent;
  pen.fillRect(x - 0.75, 0, 1.5, down);
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = look.theme.soft;
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    pen.textAlign = share === 0 ? "left" : share === 1 ? "right" : "center";
    pen.fillText(`${Math.round(share * (T - 1))}`, GUTTER + share * across, height - 4);
  }
  pen.textAlign = "right";
  pen.fillText("frame", GUTTER - 6, height - 4);
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {number[]} order
 * @param {Look} look
 * @param {number} down
 */
function nameRows(pen, order, look, down) {
  const { slots, joints } = look.skeleton;
  const tall = down / order.length;
  let free = 0; // below which no name stands yet
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "right";
  for (let row = 0; row < order.length; ) {
    const joint = slots[0][order[row]];
    let end = row;
    while (end < order.length && slots[0][order[end]] === joint) end++;
    pen.fillStyle = look.theme.line;
    pen.fillRect(GUTTER - 4, row * tall, 4, 1);
    const y = ((row + end) / 2) * tall + 4;
    if (y - 11 >= free) {
      pen.fillStyle = look.theme.soft;
      pen.fillText(joints[joint], GUTTER - 6, y, GUTTER - 8);
      free = y;
    }
    row = end;
  }
}

/**
 * @param {Walk} walk
 * @param {number[]} order
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 * @returns {{slot: number, frame: number} | null}
 */
export function cellAt(walk, order, x, y, width, height) {
  const row = Math.floor((y / (height - FOOT)) * order.length);
  const frame = Math.floor(((x - GUTTER) / (width - GUTTER)) * walk.form.frames);
  return row >= 0 && row < order.length && frame >= 0 && frame < walk.form.frames ? { slot: order[row], frame } : null;
}
