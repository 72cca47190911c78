// One frame of a walk as a list of shapes, which canvas and SVG draw alike.

/** @import { Skeleton, Walk } from "./decode.js" */
/** @import { Camera, Extent } from "./geometry.js" */
/** @import { Theme } from "./colors.js" */
import { probabilityOf } from "./decode.js";
import { distanceToLine, mirrorPicture, project } from "./geometry.js";
import { colorOf, css } from "./colors.js";

/**
 * @typedef {object} Look how a frame is to be drawn
 * @property {Skeleton} skeleton
 * @property {Theme} theme
 * @property {Camera} camera
 * @property {Extent} extent
 * @property {"kept" | "class" | "chance"} mode
 * @property {number} above keep probability below which edges are not drawn
 * @property {boolean} bones
 * @property {number} apart how far frames stand apart, 0 to 1
 * @property {boolean} mirrored
 * @property {number} hover slot, or -1
 * @property {number} pinned slot, or -1
 * @property {Uint8Array | null} mean of the class, as bytes [P]
 */

/**
 * @typedef {{kind: "line", from: [number, number], to: [number, number], color: string, width: number}
 *   | {kind: "taper", points: [number, number][], color: string}
 *   | {kind: "dot", at: [number, number], radius: number, color: string}
 *   | {kind: "ring", at: [number, number], radius: number, color: string, width: number}
 *   | {kind: "text", at: [number, number], text: string, color: string}} Shape
 */

/**
 * @typedef {object} Edge as it is drawn
 * @property {number} slot
 * @property {[number, number]} from
 * @property {[number, number]} to
 * @property {number} probability
 * @property {number} value that its colour stands for
 */

/**
 * @typedef {object} Drawing
 * @property {Shape[]} shapes
 * @property {Edge[]} edges the likeliest last
 */

const MARGIN = 16;

/**
 * @param {number} byte
 * @param {number} slot
 * @param {Walk} walk
 * @param {Look} look
 * @returns {number}
 */
export function valueOf(byte, slot, walk, look) {
  const probability = probabilityOf(byte);
  if (look.mode === "chance") return probability - walk.mean;
  if (look.mode === "class") return look.mean && look.mean[slot] ? probability - probabilityOf(look.mean[slot]) : 0;
  return probability;
}

/**
 * Frames that kept edges of this one come from.
 * @param {Walk} walk
 * @param {number} frame
 * @param {Look} look
 * @returns {Map<number, Float64Array>} offset -> places [J, 2]
 */
function bodies(walk, frame, look) {
  const found = new Map();
  const { extent } = look;
  const shift = look.apart * Math.max(extent.right - extent.left, 0.35 * (extent.top - extent.bottom));
  for (const offset of new Set([0, ...look.skeleton.slots[2]])) {
    if (frame + offset < 0 || frame + offset >= walk.form.frames) continue;
    const places = project(walk, frame + offset, look.camera);
    if (look.mirrored) mirrorPicture(places);
    for (let i = 0; i < places.length; i += 2) places[i] += offset * shift;
    found.set(offset, places);
  }
  return found;
}

/**
 * @param {Walk} walk
 * @param {number} frame
 * @param {Look} look
 * @param {number} width of the canvas, in CSS pixels
 * @param {number} height
 * @returns {Drawing}
 */
export function drawingOf(walk, frame, look, width, height) {
  const places = bodies(walk, frame, look);
  const onto = fit(walk, look, width, height);
  for (const body of places.values()) {
    for (let i = 0; i < body.length; i += 2) [body[i], body[i + 1]] = onto(body[i], body[i + 1]);
  }
  const edges = edgesOf(walk, frame, look, places);
  const sources = new Set(edges.map((edge) => look.skeleton.slots[2][edge.slot]));
  const size = Math.min(1, height / 400);
  /** @type {Shape[]} */
  const shapes = [];
  for (const [offset, body] of places) {
    if (offset !== 0 && sources.has(offset) && look.apart > 0) {
      addBones(shapes, body, look, 4 * size, () => look.theme.ghost);
      const at = below(body);
      if (at) shapes.push({ kind: "text", at, text: `${offset > 0 ? "+" : "−"}${Math.abs(offset)}`, color: look.theme.soft });
    }
  }
  const now = /** @type {Float64Array} */ (places.get(0));
  if (look.bones) addBones(shapes, now, look, 7 * size, (bone) => boneColor(bone, look));
  const marked = edges.find((edge) => edge.slot === (look.hover >= 0 ? look.hover : look.pinned));
  for (const edge of edges) shapes.push(taper(edge, look, size, marked !== undefined && marked !== edge));
  for (let j = 0; j < now.length / 2; j++) {
    if (Number.isNaN(now[2 * j])) continue;
    shapes.push({ kind: "dot", at: [now[2 * j], now[2 * j + 1]], radius: 2.2, color: look.theme.ink });
    if (look.skeleton.planted.includes(j)) {
      shapes.push({ kind: "ring", at: [now[2 * j], now[2 * j + 1]], radius: 9, color: look.theme.accent, width: 1.5 });
    }
  }
  if (marked) {
    for (const at of [marked.from, marked.to]) shapes.push({ kind: "ring", at, radius: 6, color: look.theme.accent, width: 2.5 });
  }
  return { shapes, edges };
}

/**
 * From the walk's units to pixels, with all frames that are drawn inside.
 * @param {Walk} walk
 * @param {Look} look
 * @param {number} width
 * @param {number} height
 * @returns {(x: number, y: number) => [number, number]}
 */
function fit(walk, look, width, height) {
  const { extent } = look;
  const [left, right] = look.mirrored ? [-extent.right, -extent.left] : [extent.left, extent.right];
  const offsets = walk.form.slots ? look.skeleton.slots[2] : [];
  const reach = offsets.reduce((most, offset) => Math.max(most, Math.abs(offset)), 0);
  const shift = reach * look.apart * Math.max(right - left, 0.35 * (extent.top - extent.bottom));
  const across = right - left + 2 * shift;
  const upwards = extent.top - extent.bottom;
  const scale = Math.min((width - 2 * MARGIN) / (across || 1e-9), (height - 2 * MARGIN - 8) / (upwards || 1e-9), 1e9);
  const [cx, cy] = [(left + right) / 2, (extent.top + extent.bottom) / 2];
  return (x, y) => [width / 2 + (x - cx) * scale, height / 2 - 4 - (y - cy) * scale];
}

/**
 * Where a body's number stands, under its feet.
 * @param {Float64Array} body
 * @returns {[number, number] | null}
 */
function below(body) {
  let [total, count, lowest] = [0, 0, -Infinity];
  for (let i = 0; i < body.length; i += 2) {
    if (Number.isNaN(body[i])) continue;
    total += body[i];
    count++;
    lowest = Math.max(lowest, body[i + 1]);
  }
  return count ? [total / count, lowest + 14] : null;
}

/**
 * @param {Walk} walk
 * @param {number} frame
 * @param {Look} look
 * @param {Map<number, Float64Array>} places
 * @returns {Edge[]}
 */
function edgesOf(walk, frame, look, places) {
  const [src, dst, offset] = look.skeleton.slots;
  const T = walk.form.frames;
  /** @type {Edge[]} */
  const edges = [];
  for (let slot = 0; slot < walk.form.slots; slot++) {
    const at = slot * T + frame;
    if (!walk.kept[at] || probabilityOf(walk.likely[at]) < look.above) continue;
    const [there, here] = [places.get(offset[slot]), places.get(0)];
    if (!there || !here) continue;
    /** @type {[number, number]} */
    const from = [there[2 * src[slot]], there[2 * src[slot] + 1]];
    /** @type {[number, number]} */
    const to = [here[2 * dst[slot]], here[2 * dst[slot] + 1]];
    if (Number.isNaN(from[0]) || Number.isNaN(to[0])) continue;
    edges.push({ slot, from, to, probability: probabilityOf(walk.likely[at]), value: valueOf(walk.likely[at], slot, walk, look) });
  }
  return edges.sort((a, b) => a.probability - b.probability);
}

/**
 * @param {Shape[]} shapes
 * @param {Float64Array} body
 * @param {Look} look
 * @param {number} width
 * @param {(bone: [number, number]) => string} color
 */
function addBones(shapes, body, look, width, color) {
  for (const bone of look.skeleton.bones) {
    const [a, b] = bone;
    if (Number.isNaN(body[2 * a]) || Number.isNaN(body[2 * b])) continue;
    shapes.push({ kind: "line", from: [body[2 * a], body[2 * a + 1]], to: [body[2 * b], body[2 * b + 1]], color: color(bone), width });
  }
}

/** @param {[number, number]} bone @param {Look} look @returns {string} */
function boneColor(bone, look) {
  const left = bone.some((joint) => look.skeleton.left.includes(joint));
  const right = bone.some((joint) => look.skeleton.right.includes(joint));
  return look.theme.bones[left === right ? 1 : left ? 0 : 2];
}

/**
 * Wide at the joint that it leaves, pointed where it goes.
 * @param {Edge} edge
 * @param {Look} look
 * @param {number} size
 * @param {boolean} dimmed
 * @returns {Shape}
 */
function taper(edge, look, size, dimmed) {
  const [dx, dy] = [edge.to[0] - edge.from[0], edge.to[1] - edge.from[1]];
  const strength = look.mode === "kept" ? edge.probability : Math.min(1, 2 * Math.abs(edge.value));
  const half = ((1.2 + 4.3 * strength) * size) / (Math.hypot(dx, dy) || 1);
  return {
    kind: "taper",
    points: [[edge.from[0] - half * dy, edge.from[1] + half * dx], [edge.from[0] + half * dy, edge.from[1] - half * dx], edge.to],
    color: css(colorOf(look.theme, look.mode, edge.value), dimmed ? 0.25 : 0.92),
  };
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Shape[]} shapes
 */
export function paint(pen, shapes) {
  pen.lineCap = "round";
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "center";
  for (const shape of shapes) {
    pen.beginPath();
    if (shape.kind === "line") {
      pen.strokeStyle = shape.color;
      pen.lineWidth = shape.width;
      pen.moveTo(...shape.from);
      pen.lineTo(...shape.to);
      pen.stroke();
    } else if (shape.kind === "taper") {
      pen.fillStyle = shape.color;
      for (const point of shape.points) pen.lineTo(...point);
      pen.fill();
    } else if (shape.kind === "text") {
      pen.fillStyle = shape.color;
      pen.fillText(shape.text, ...shape.at);
    } else {
      pen.arc(...shape.at, shape.radius, 0, 2 * Math.PI);
      if (shape.kind === "dot") {
        pen.fillStyle = shape.color;
        pen.fill();
      } else {
        pen.strokeStyle = shape.color;
        pen.lineWidth = shape.width;
        pen.stroke();
      }
    }
  }
}

/**
 * The slot of the edge that is there; -1 where none is near.
 * @param {Edge[]} edges
 * @param {number} x
 * @param {number} y
 * @returns {number}
 */
export function slotAt(edges, x, y) {
  let nearest = 9;
  let slot = -1;
  for (const edge of edges) {
    const distance = distanceToLine(x, y, ...edge.from, ...edge.to);
    if (distance <= nearest) {
      nearest = distance;
      slot = edge.slot;
    }
  }
  return slot;
}
