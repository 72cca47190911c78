// What the file holds, and how `packing.py` has packed it.

/**
 * @typedef {object} Form one walk as it is told of
 * @property {string} name
 * @property {string} subject
 * @property {number | null} ofClass
 * @property {number} predicted
 * @property {number} probability
 * @property {number | null} ofOwn probability of its own class
 * @property {number} moved largest change of a probability with random edges
 * @property {Record<string, string>} attributes
 * @property {number | null} fps
 * @property {number | null} cycle
 * @property {number | null} nearest
 * @property {number | null} keptShare
 * @property {number | null} agreement
 * @property {string | null} run another one than the page's own
 * @property {string[]} sentences
 * @property {[string, number, number, boolean][]} rows
 * @property {number} frames
 * @property {number} joints
 * @property {number} dimensions
 * @property {number} slots
 * @property {number[]} origin
 * @property {number} step
 */

/**
 * @typedef {object} Skeleton
 * @property {string[]} joints
 * @property {[number, number][]} bones
 * @property {number[]} left
 * @property {number[]} right
 * @property {number[]} order joints along the limbs
 * @property {number[]} planted
 * @property {[number, number][]} body a standing one, x to the right and y up
 * @property {[number[], number[], number[]]} slots from, to, frame offset
 */

/**
 * @typedef {object} Page
 * @property {string} version
 * @property {string} run
 * @property {number} seed
 * @property {string} data
 * @property {{code: string, quote: string, not: string}} verdict
 * @property {string | null} noEdges
 * @property {string[]} notes
 * @property {string[]} classes
 * @property {Skeleton} skeleton
 * @property {Mean[]} means
 * @property {Form[]} walks
 * @property {Beside | null} beside
 */

/** @typedef {{walks: number, people: number, probability: string, kept: string} | null} Mean of a class */

/** @typedef {Pick<Page, "run" | "seed" | "verdict" | "noEdges" | "means" | "walks">} Beside the same walks as another run has them */

/**
 * @typedef {object} Walk one walk, unpacked
 * @property {Form} form
 * @property {Float32Array} poses [T, J, D], NaN where a joint was not seen
 * @property {Uint8Array} likely [P, T]: 0 where there is no edge, else 1 + 254 times the keep probability
 * @property {Uint8Array} kept [P, T]: 0 or 1
 * @property {number} mean keep probability of all its edges
 */

const NOT_SEEN = 0xffff;

/** @param {number} byte @returns {number} */
export function probabilityOf(byte) {
  return (byte - 1) / 254;
}

/** @param {string} text base64 @returns {Uint8Array<ArrayBuffer>} */
export function bytesOf(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/**
 * @param {Form} form
 * @param {string} content base64 of deflated bytes
 * @returns {Promise<Walk>}
 */
export async function unpack(form, content) {
  const stream = new Blob([bytesOf(content)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const { frames: T, joints: J, dimensions: D, slots: P } = form;
  const numbers = T * J * D;
  const likely = bytes.slice(2 * numbers, 2 * numbers + P * T);
  let total = 0;
  let edges = 0;
  for (let p = 0; p < P; p++) {
    for (let t = 1, at = p * T + 1; t < T; t++, at++) likely[at] = (likely[at] + likely[at - 1]) & 0xff;
  }
  for (const byte of likely) {
    if (byte) {
      total += probabilityOf(byte);
      edges++;
    }
  }
  const poses = unpackPoses(form, bytes.subarray(0, numbers), bytes.subarray(numbers, 2 * numbers));
  return { form, poses, likely, kept: unpackBits(bytes.subarray(2 * numbers + P * T), P * T), mean: edges ? total / edges : 0 };
}

/**
 * @param {Form} form
 * @param {Uint8Array} high
 * @param {Uint8Array} low
 * @returns {Float32Array}
 */
function unpackPoses(form, high, low) {
  const { frames: T, joints: J, dimensions: D } = form;
  const poses = new Float32Array(T * J * D);
  for (let row = 0; row < J * D; row++) {
    let speed = 0;
    let place = 0;
    for (let t = 0; t < T; t++) {
      const small = (high[row * T + t] << 8) | low[row * T + t];
      speed = (speed + ((small >>> 1) ^ -(small & 1))) & 0xffff;
      place = (place + speed) & 0xffff;
      poses[t * J * D + row] = place === NOT_SEEN ? NaN : form.origin[row % D] + form.step * place;
    }
  }
  return poses;
}

/** @param {Uint8Array} bytes @param {number} count @returns {Uint8Array} */
function unpackBits(bytes, count) {
  const bits = new Uint8Array(count);
  for (let i = 0; i < count; i++) bits[i] = (bytes[i >> 3] >> (i & 7)) & 1;
  return bits;
}
