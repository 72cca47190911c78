// How many of its edges every joint keeps, on a drawn body, beside the mean of the class.

/** @import { Mean, Skeleton, Walk } from "./decode.js" */
/** @import { Theme } from "./colors.js" */
import { bytesOf, probabilityOf } from "./decode.js";
import { colorOf, css } from "./colors.js";

/** @typedef {"sends" | "receives"} Side */

/**
 * @param {Walk} walk
 * @returns {Float64Array} the share of its frames in which a slot is kept, NaN where it never exists  # [P]
 */
export function keptOfSlots(walk) {
  const { frames: T, slots: P } = walk.form;
  const shares = new Float64Array(P);
  for (let slot = 0; slot < P; slot++) {
    let kept = 0;
    let edges = 0;
    for (let at = slot * T; at < (slot + 1) * T; at++) {
      kept += walk.kept[at];
      edges += walk.likely[at] > 0 ? 1 : 0;
    }
    shares[slot] = kept / edges;
  }
  return shares;
}

/** @param {Uint8Array} bytes @returns {Float64Array} */
export function sharesOf(bytes) {
  return Float64Array.from(bytes, (byte) => (byte ? probabilityOf(byte) : NaN));
}

/**
 * What is kept of every slot, over all walks, each counted alike.
 * @param {Mean[]} means of the classes
 * @param {number} slots
 * @returns {Float64Array} NaN where there are no walks with edges  # [P]
 */
export function keptOverall(means, slots) {
  const total = new Float64Array(slots);
  let walks = 0;
  for (const mean of means) {
    if (!mean) continue;
    sharesOf(bytesOf(mean.kept)).forEach((share, slot) => (total[slot] += mean.walks * share));
    walks += mean.walks;
  }
  return total.map((sum) => sum / walks);
}

/**
 * Mean over the slots between a joint and others.
 * @param {Float64Array} shares of slots  # [P]
 * @param {Skeleton} skeleton
 * @param {Side} side
 * @returns {Float64Array} NaN of a joint without any  # [J]
 */
export function ofJoints(shares, skeleton, side) {
  const [src, dst] = skeleton.slots;
  const total = new Float64Array(skeleton.joints.length);
  const count = new Float64Array(skeleton.joints.length);
  shares.forEach((share, slot) => {
    if (src[slot] === dst[slot] || Number.isNaN(share)) return;
    const joint = side === "sends" ? src[slot] : dst[slot];
    total[joint] += share;
    count[joint]++;
  });
  return total.map((sum, joint) => sum / count[joint]);
}

/**
 * What all joints together keep: the share that each would have if none stood out.
 * @param {Float64Array} shares of joints
 * @returns {number}
 */
export function alike(shares) {
  const known = shares.filter((share) => !Number.isNaN(share));
  return known.reduce((total, share) => total + share, 0) / (known.length || 1);
}

/**
 * Large is what keeps much; coloured what differs from all joints alike.
 * @param {CanvasRenderingContext2D} pen
 * @param {Skeleton} skeleton
 * @param {Theme} theme
 * @param {{title: string, shares: Float64Array}[]} bodies side by side
 * @param {number} width
 * @param {number} height
 */
export function paintBodies(pen, skeleton, theme, bodies, width, height) {
  pen.clearRect(0, 0, width, height);
  const most = Math.max(...bodies.map((body) => Math.max(0, ...body.shares.map((share) => share || 0)))) || 1;
  const each = width / bodies.length;
  bodies.forEach((body, i) => paintBody(pen, skeleton, theme, body, most, i * each, each, height));
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Skeleton} skeleton
 * @param {Theme} theme
 * @param {{title: string, shares: Float64Array}} body
 * @param {number} most
 * @param {number} left
 * @param {number} width
 * @param {number} height
 */
function paintBody(pen, skeleton, theme, body, most, left, width, height) {
  const [xs, ys] = [skeleton.body.map((place) => place[0]), skeleton.body.map((place) => place[1])];
  const [low, high, bottom, top] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = Math.min((width - 50) / (high - low || 1e-9), (height - 74) / (top - bottom || 1e-9), 1e9);
  const place = (/** @type {number} */ joint) => /** @type {[number, number]} */ ([
    left + width / 2 + (xs[joint] - (low + high) / 2) * scale,
    (height + 22) / 2 - (ys[joint] - (bottom + top) / 2) * scale,
  ]);
  pen.lineCap = "round";
  pen.lineWidth = 4;
  pen.strokeStyle = theme.bones[1];
  for (const [a, b] of skeleton.bones) {
    pen.beginPath();
    pen.moveTo(...place(a));
    pen.lineTo(...place(b));
    pen.stroke();
  }
  const expected = alike(body.shares);
  body.shares.forEach((share, joint) => {
    if (Number.isNaN(share)) return;
    pen.beginPath();
    pen.arc(...place(joint), 3 + (11 * share) / most, 0, 2 * Math.PI);
    pen.fillStyle = css(colorOf(theme, "chance", share - expected));
    pen.strokeStyle = theme.ink;
    pen.lineWidth = 1;
    pen.fill();
    pen.stroke();
  });
  pen.fillStyle = theme.soft;
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.fillText(body.title, left + width / 2, 16, width - 8);
  if (skeleton.left.length) {
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "left";
    pen.fillText("right side", left + 6, height - 6);
    pen.textAlign = "right";
    pen.fillText("left side", left + width - 6, height - 6);
  }
}

/**
 * The frame whose kept edges are likeliest, together: where there is most to be seen.
 * @param {Walk} walk
 * @returns {number}
 */
export function fullestFrame(walk) {
  const { frames: T, slots: P } = walk.form;
  const sums = new Float64Array(T);
  for (let slot = 0, at = 0; slot < P; slot++) {
    for (let t = 0; t < T; t++, at++) if (walk.kept[at]) sums[t] += probabilityOf(walk.likely[at]) ** 2;
  }
  return sums.reduce((best, sum, t) => (sum > sums[best] ? t : best), 0);
}

/**
 * The joints that keep most, in words.
 * @param {Float64Array} shares
 * @param {string[]} joints
 * @returns {string}
 */
export function mostInWords(shares, joints) {
  const known = [...shares.keys()].filter((joint) => !Number.isNaN(shares[joint])).sort((a, b) => shares[b] - shares[a]);
  return known.slice(0, 3).map((joint) => `${joints[joint]} ${Math.round(100 * shares[joint])} %`).join(", ");
}
