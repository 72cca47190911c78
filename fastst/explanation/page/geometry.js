// Where joints are on the screen.

/** @import { Walk } from "./decode.js" */

/**
 * @typedef {object} Camera
 * @property {number} azimuth degrees: 0 in front of the walker, 90 at the right-hand side
 * @property {number} elevation degrees
 */

/**
 * @typedef {object} Extent of a walk as it is seen, in its own units
 * @property {number} left
 * @property {number} right
 * @property {number} bottom
 * @property {number} top
 */

const MOST_LOOKED_AT = 400; // frames

/**
 * x to the right and y up, of all joints of a frame. 3D without perspective.
 * @param {Walk} walk
 * @param {number} frame
 * @param {Camera} camera
 * @returns {Float64Array} [J, 2]
 */
export function project(walk, frame, camera) {
  const { joints: J, dimensions: D } = walk.form;
  const places = new Float64Array(2 * J);
  const azimuth = (camera.azimuth * Math.PI) / 180;
  const elevation = (camera.elevation * Math.PI) / 180;
  const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
  for (let j = 0, at = frame * J * D; j < J; j++, at += D) {
    if (D === 2) {
      places[2 * j] = walk.poses[at];
      places[2 * j + 1] = walk.poses[at + 1];
    } else {
      const [forwards, left, up] = [walk.poses[at], walk.poses[at + 1], walk.poses[at + 2]];
      places[2 * j] = ca * left + sa * forwards;
      places[2 * j + 1] = ce * up - se * (ca * forwards - sa * left);
    }
  }
  return places;
}

/**
 * Left and right of the picture exchanged.
 * @param {Float64Array} places
 */
export function mirrorPicture(places) {
  for (let i = 0; i < places.length; i += 2) places[i] = -places[i];
}

/**
 * What holds the whole walk from this side, so that nothing jumps while it plays.
 * @param {Walk} walk
 * @param {Camera} camera
 * @returns {Extent}
 */
export function extentOf(walk, camera) {
  const extent = { left: Infinity, right: -Infinity, bottom: Infinity, top: -Infinity };
  const step = Math.max(1, Math.floor(walk.form.frames / MOST_LOOKED_AT));
  for (let t = 0; t < walk.form.frames; t += step) {
    const places = project(walk, t, camera);
    for (let i = 0; i < places.length; i += 2) {
      if (Number.isNaN(places[i]) || Number.isNaN(places[i + 1])) continue;
      extent.left = Math.min(extent.left, places[i]);
      extent.right = Math.max(extent.right, places[i]);
      extent.bottom = Math.min(extent.bottom, places[i + 1]);
      extent.top = Math.max(extent.top, places[i + 1]);
    }
  }
  return Number.isFinite(extent.left) ? extent : { left: -1, right: 1, bottom: -1, top: 1 };
}

/**
 * @param {number} x
 * @param {number} y
 * @param {number} ax
 * @param {number} ay
 * @param {number} bx
 * @param {number} by
 * @returns {number} distance of a point from a line between two others
 */
export function distanceToLine(x, y, ax, ay, bx, by) {
  const length = (bx - ax) ** 2 + (by - ay) ** 2;
  const along = length ? Math.min(1, Math.max(0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length)) : 0;
  return Math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay));
}
