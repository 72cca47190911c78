// The page: what is chosen, the clock, and everything that draws.

/** @import { Page, Walk } from "./decode.js" */
/** @import { Edge, Look } from "./figure.js" */
/** @import { Side } from "./body.js" */
/** @import { Plate } from "./exports.js" */
import { bytesOf, unpack } from "./decode.js";
import { byId, canvas, input, penOf, select } from "./dom.js";
import { extentOf } from "./geometry.js";
import { colorOf, css, currentTheme } from "./colors.js";
import { drawingOf, paint, slotAt } from "./figure.js";
import { cellAt, cells, paintRaster, rowOrder } from "./raster.js";
import { alike, fullestFrame, keptOfSlots, keptOverall, mostInWords, ofJoints, paintBodies, sharesOf } from "./body.js";
import { chosenWalks, fillFilters, fillList, fillSelect, markChosen, wanted } from "./walks.js";
import { csvOf, hand, pngOf, svgOf, wrapped } from "./exports.js";
import { captionOf, cellInWords, frameInWords, percent, scaleInWords, tellBeside, tellRun, tellWalk, whereInWords } from "./words.js";

const RATE = 25; // frames a second where nobody knows
/** @type {Page} */
const page = JSON.parse(byId("data").textContent ?? "");
const contents = [...document.querySelectorAll("script.walk")].map((element) => element.textContent ?? "");
const order = rowOrder(page.skeleton, ofJoints(keptOverall(page.means, page.skeleton.slots[0].length), page.skeleton, "sends"));
const forms = [...page.walks, ...(page.beside?.walks ?? [])];
const [means, meansBeside] = [page.means, page.beside?.means ?? []].map((of) =>
  of.map((mean) => mean && { probability: bytesOf(mean.probability), kept: bytesOf(mean.kept) }),
);
const [list, frameBar, besideChoice] = [byId("list"), input("frame"), select("beside")];
const figures = [canvas("figure"), canvas("figure-beside")];
const raster = canvas("raster");

const state = {
  number: -1,
  frame: 0,
  beside: -1,
  playing: false,
  loopFrom: 0,
  azimuth: 90,
  elevation: 0,
  hover: -1,
  pinned: -1,
  theme: currentTheme(),
};
/** @type {Walk | null} */
let walk = null;
/** @type {Walk | null} */
let other = null;
/** @type {HTMLCanvasElement | null} */
let picture = null;
/** @type {Edge[]} */
let edges = [];
/** @type {Map<number, Promise<Walk>>} */
const unpacked = new Map();
/** @type {number[]} */
let shown = [];
let asked = false; // for a drawing
let before = 0; // time of the last drawing, in ms
let ahead = 0; // part of a frame that the clock is ahead

/**
 * A walk, unpacked when it is first asked for; a few stay.
 * @param {number} number
 * @returns {Promise<Walk>}
 */
function load(number) {
  const known = unpacked.get(number) ?? unpack(forms[number], contents[number]);
  unpacked.delete(number);
  unpacked.set(number, known);
  for (const oldest of unpacked.keys()) {
    if (unpacked.size <= 6) break;
    unpacked.delete(oldest);
  }
  return known;
}

/** @param {number} number @param {number} [frame] left out, the one with most to be seen */
async function choose(number, frame) {
  state.number = number;
  markChosen(list, number);
  const loaded = await load(number);
  if (state.number !== number) return; // somebody was quicker
  walk = loaded;
  state.frame = clamp(frame ?? fullestFrame(walk), walk);
  [state.hover, state.pinned] = [-1, walk.form.slots ? state.pinned : -1];
  frameBar.max = String(Math.max(walk.form.frames - 1, 0));
  byId("loop-label").hidden = walk.form.cycle === null;
  byId("turning").hidden = walk.form.dimensions === 2;
  tellWalk(page, walk.form);
  byId("where").textContent = whereInWords(page, walk);
  fillBeside(walk);
  await chooseBeside();
  redrawAll();
  hover(-1, state.frame);
}

/** @param {Walk} of */
function fillBeside(of) {
  const chosen = besideChoice.value || (page.beside ? "model" : "none");
  /** @type {[string, string][]} */
  const options = [["none", "nothing"]];
  if (page.beside) options.push(["model", `the same walk, run ${page.beside.run}`]);
  if (of.form.nearest !== null) options.push(["nearest", `nearest of another class: ${page.walks[of.form.nearest].name}`]);
  options.push(["itself", "the same walk"]);
  for (const [i, form] of page.walks.entries()) if (i !== state.number) options.push([String(i), form.name]);
  fillSelect(besideChoice, options);
  besideChoice.value = options.some(([value]) => value === chosen) ? chosen : "none";
}

async function chooseBeside() {
  const wanted = besideChoice.value;
  /** @type {Record<string, number>} */
  const named = { none: -1, nearest: walk?.form.nearest ?? -1, itself: state.number, model: page.walks.length + state.number };
  const number = named[wanted] ?? Number(wanted);
  const loaded = number < 0 ? null : await load(number);
  state.beside = number;
  other = loaded;
  tellBeside(page, loaded?.form ?? null);
  byId("second").hidden = loaded === null;
  byId("mirror-label").hidden = loaded === null;
}

/** @param {number} frame @param {Walk} of @returns {number} */
function clamp(frame, of) {
  return Math.min(Math.max(Math.round(frame) || 0, 0), of.form.frames - 1);
}

/** @param {Walk} of @param {boolean} mirrored @returns {Look} */
function lookAt(of, mirrored) {
  const camera = { azimuth: state.azimuth, elevation: state.elevation };
  return {
    skeleton: page.skeleton,
    theme: state.theme,
    camera,
    extent: extent(of, camera),
    mode: /** @type {Look["mode"]} */ (select("mode").value),
    above: Number(input("above").value),
    bones: input("bones").checked,
    apart: Number(input("apart").value),
    mirrored,
    hover: state.hover,
    pinned: state.pinned,
    mean: (of.form.run === null ? means : meansBeside)[of.form.ofClass ?? of.form.predicted]?.probability ?? null,
  };
}

/** @type {WeakMap<Walk, {key: string, extent: import("./geometry.js").Extent}>} */
const extents = new WeakMap();

/** @param {Walk} of @param {import("./geometry.js").Camera} camera */
function extent(of, camera) {
  const key = `${camera.azimuth} ${camera.elevation}`;
  const known = extents.get(of);
  if (known?.key === key) return known.extent;
  const found = extentOf(of, camera);
  extents.set(of, { key, extent: found });
  return found;
}

/** The frame of the walk beside at the same time; it stays at its last one. @returns {number} */
function frameBeside() {
  if (!walk || !other) return 0;
  const rates = [walk.form.fps ?? RATE, other.form.fps ?? RATE];
  return clamp((state.frame * rates[1]) / rates[0], other);
}

function redrawAll() {
  if (!walk) return;
  picture = cells(walk, order, lookAt(walk, false));
  const look = lookAt(walk, false);
  byId("edges").classList.toggle("none", !walk.form.slots);
  for (const id of ["raster", "scale", "hovered", "keys"]) byId(id).hidden = !walk.form.slots;
  byId("importance").hidden = !walk.form.slots;
  byId("take-csv").hidden = !walk.form.slots;
  if (walk.form.slots) {
    paintScale(look);
    paintImportance();
  }
  redraw();
}

function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame((now) => {
    asked = false;
    if (state.playing) tick(now);
    before = now;
    paintNow();
    if (state.playing) redraw();
  });
}

/** @param {number} now */
function tick(now) {
  if (!walk) return;
  const rate = (walk.form.fps ?? RATE) * (Number(input("speed").value) || 1);
  ahead += (Math.min(now - before, 1000) / 1000) * rate;
  const steps = Math.floor(ahead);
  ahead -= steps;
  const cycle = input("loop").checked && walk.form.cycle ? walk.form.cycle : 0;
  const first = cycle ? Math.min(state.loopFrom, Math.max(walk.form.frames - cycle, 0)) : 0;
  const count = cycle || walk.form.frames;
  state.frame = first + ((((state.frame - first + steps) % count) + count) % count);
}

function paintNow() {
  if (!walk) return;
  const look = lookAt(walk, false);
  const [pen, width, height] = penOf(figures[0]);
  pen.clearRect(0, 0, width, height);
  const drawing = drawingOf(walk, state.frame, look, width, height);
  edges = drawing.edges;
  paint(pen, drawing.shapes);
  byId("caption").textContent = captionOf(page, walk, false);
  if (other) {
    const [second, across, down] = penOf(figures[1]);
    second.clearRect(0, 0, across, down);
    paint(second, drawingOf(other, frameBeside(), lookAt(other, input("mirror").checked), across, down).shapes);
    byId("caption-beside").textContent = captionOf(page, other, input("mirror").checked);
  }
  if (walk.form.slots) {
    const [rasterPen, across, down] = penOf(raster);
    paintRaster(rasterPen, picture, walk, order, look, state.frame, across, down);
  }
  frameBar.value = String(state.frame);
  const seconds = walk.form.fps ? `, ${(state.frame / walk.form.fps).toFixed(2)} s` : "";
  byId("at").textContent = `frame ${state.frame} / ${walk.form.frames - 1}${seconds}`;
  if (!state.playing) {
    byId("now").textContent = frameInWords(page, walk, state.frame, edges);
    keepLink();
  }
}

/** The frame as it is drawn, with what it is and what may be said of it. @param {Walk} of @returns {Plate} */
function plateOf(of) {
  const [width, height] = [figures[0].clientWidth, figures[0].clientHeight];
  const look = lookAt(of, false);
  const words = [`${captionOf(page, of, false)} · frame ${state.frame}`, `Run ${page.run}: ${page.verdict.quote}`];
  const lines = words.flatMap((line) => wrapped(line, width / 6.5));
  return { shapes: drawingOf(of, state.frame, look, width, height).shapes, lines, width, height, theme: look.theme };
}

/** @param {"svg" | "png" | "csv"} kind */
async function take(kind) {
  if (!walk) return;
  const name = `${walk.form.name}${kind === "csv" ? "" : `-frame-${state.frame}`}.${kind}`;
  hand(kind === "csv" ? csvOf(page, walk) : kind === "svg" ? svgOf(plateOf(walk)) : await pngOf(plateOf(walk)), name);
}

/** @param {Look} look */
function paintScale(look) {
  if (!walk) return;
  const box = byId("scale");
  const strip = document.createElement("canvas");
  [strip.width, strip.height] = [140, 1];
  const pen = strip.getContext("2d");
  for (let x = 0; x < 140 && pen; x++) {
    pen.fillStyle = css(colorOf(look.theme, look.mode, look.mode === "kept" ? x / 139 : x / 139 - 0.5));
    pen.fillRect(x, 0, 1, 1);
  }
  const words = document.createElement("span");
  words.textContent = scaleInWords(page, look, walk.form);
  box.replaceChildren(strip, words);
}

function paintImportance() {
  if (!walk) return;
  const side = /** @type {Side} */ (select("side-of").value);
  const mine = ofJoints(keptOfSlots(walk), page.skeleton, side);
  const of = walk.form.ofClass ?? walk.form.predicted;
  const [mean, told] = [means[of], page.means[of]];
  const bodies = [{ title: "this walk", shares: mine }];
  if (mean && told) bodies.push({ title: `mean of ${page.classes[of]} (${told.walks})`, shares: ofJoints(sharesOf(mean.kept), page.skeleton, side) });
  const [pen, width, height] = penOf(canvas("body"));
  paintBodies(pen, page.skeleton, state.theme, bodies, width, height);
  const words = bodies.map((body) => `${body.title}: ${mostInWords(body.shares, page.skeleton.joints)}`).join("; ");
  byId("joints").textContent =
    `Size: the share of these edges that is kept (${words}). Red joints keep more than all joints alike (${percent(alike(mine))}), blue ones fewer.`;
}

/** The place in the page's own address. */
function keepLink() {
  if (!walk) return;
  const link = `#walk=${encodeURIComponent(walk.form.name)}&frame=${state.frame}`;
  if (location.hash !== link) history.replaceState(null, "", link);
}

/** @returns {boolean} whether the address names a walk of this page */
function followLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const number = page.walks.findIndex((form) => form.name === link.get("walk"));
  if (number < 0) return false;
  void choose(number, link.has("frame") ? Number(link.get("frame")) : undefined);
  return true;
}

/** @param {number} frame */
function seek(frame) {
  if (!walk) return;
  state.frame = clamp(frame, walk);
  state.loopFrom = state.frame;
  hover(state.hover, state.frame);
  redraw();
}

/** @param {boolean} on */
function play(on) {
  state.playing = on;
  byId("play").textContent = on ? "Pause" : "Play";
  before = performance.now();
  ahead = 0;
  state.loopFrom = state.frame;
  redraw();
}

function filter() {
  shown = chosenWalks(page.walks, wanted());
  fillList(list, page, shown, state.number);
  byId("count").textContent = shown.length === page.walks.length ? `${shown.length}` : `${shown.length} of ${page.walks.length}`;
}

/** @param {number} by */
function chooseNext(by) {
  if (!shown.length) return;
  const at = shown.indexOf(state.number);
  void choose(shown[at < 0 ? 0 : Math.min(Math.max(at + by, 0), shown.length - 1)]);
}

/** @param {PointerEvent | MouseEvent} event @returns {[number, number]} */
function placeIn(event) {
  return [event.offsetX, event.offsetY];
}

/** @param {number} slot @param {number} frame */
function hover(slot, frame) {
  if (!walk) return;
  const marked = slot >= 0 ? slot : state.pinned;
  const words = marked < 0 ? "" : cellInWords(page, walk, marked, frame) + (marked === state.pinned ? " (marked; click it again to let it go)" : "");
  byId("hovered").textContent = words || "Point at an edge or at a cell: they show each other. Click: it stays marked.";
  raster.setAttribute("aria-valuenow", String(order.indexOf(marked) + 1));
  raster.setAttribute("aria-valuetext", words || "no edge chosen");
  if (slot === state.hover) return;
  state.hover = slot;
  redraw();
}

/** @param {number} slot */
function pin(slot) {
  state.pinned = slot === state.pinned ? -1 : slot;
  hover(-1, state.frame);
  redraw();
}

/** With the keys: another row of the raster. @param {number} by */
function chooseRow(by) {
  const row = order.indexOf(state.hover >= 0 ? state.hover : state.pinned) + by;
  hover(order[Math.min(Math.max(row, 0), order.length - 1)], state.frame);
}

/** With the keys: the chosen row is marked, and stays chosen. */
function pinRow() {
  const slot = state.hover >= 0 ? state.hover : state.pinned;
  if (slot < 0) return;
  pin(slot);
  hover(slot, state.frame);
}

/** @param {HTMLCanvasElement} on */
function letTurn(on) {
  /** @type {[number, number] | null} */
  let held = null;
  let moved = false;
  on.addEventListener("pointerdown", (event) => {
    [held, moved] = [[event.clientX, event.clientY], false];
    on.setPointerCapture(event.pointerId);
  });
  on.addEventListener("pointerup", (event) => {
    held = null;
    if (!moved && on === figures[0]) pin(slotAt(edges, ...placeIn(event)));
  });
  on.addEventListener("pointercancel", () => (held = null));
  on.addEventListener("pointermove", (event) => {
    if (!held) {
      if (on === figures[0]) hover(slotAt(edges, ...placeIn(event)), state.frame);
      return;
    }
    const [dx, dy] = [event.clientX - held[0], event.clientY - held[1]];
    if (!moved && Math.hypot(dx, dy) < 4) return;
    [held, moved] = [[event.clientX, event.clientY], true];
    turn(state.azimuth - dx / 2, state.elevation + dy / 2);
  });
  on.addEventListener("pointerleave", () => hover(-1, state.frame));
}

/** @param {number} azimuth @param {number} elevation */
function turn(azimuth, elevation) {
  if (walk?.form.dimensions !== 3) return;
  state.azimuth = ((azimuth % 360) + 360) % 360;
  state.elevation = Math.min(Math.max(elevation, -90), 90);
  [input("azimuth").value, input("elevation").value] = [String(state.azimuth), String(state.elevation)];
  redraw();
}

function listenToEdges() {
  raster.setAttribute("aria-valuemax", String(order.length));
  const cell = (/** @type {MouseEvent} */ event) => walk && cellAt(walk, order, ...placeIn(event), raster.clientWidth, raster.clientHeight);
  raster.addEventListener("pointermove", (event) => {
    const at = cell(event);
    hover(at ? at.slot : -1, at ? at.frame : state.frame);
  });
  raster.addEventListener("pointerleave", () => hover(-1, state.frame));
  raster.addEventListener("click", (event) => {
    const at = cell(event);
    if (!at) return;
    pin(at.slot);
    play(false);
    seek(at.frame);
  });
  for (const figure of figures) letTurn(figure);
}

function listenToControls() {
  byId("play").addEventListener("click", () => play(!state.playing));
  byId("back").addEventListener("click", () => step(-1));
  byId("on").addEventListener("click", () => step(1));
  frameBar.addEventListener("input", () => seek(Number(frameBar.value)));
  input("loop").addEventListener("change", () => (state.loopFrom = state.frame));
  for (const id of ["mode", "above", "bones", "apart", "side-of", "mirror"]) {
    byId(id).addEventListener("input", () => {
      byId("above-said").textContent = `${Math.round(100 * Number(input("above").value))} %`;
      redrawAll();
    });
  }
  besideChoice.addEventListener("change", () => void chooseBeside().then(redraw));
  for (const kind of /** @type {const} */ (["svg", "png", "csv"])) byId(`take-${kind}`).addEventListener("click", () => void take(kind));
  for (const id of ["azimuth", "elevation"]) {
    byId(id).addEventListener("input", () => turn(Number(input("azimuth").value), Number(input("elevation").value)));
  }
  byId("front").addEventListener("click", () => turn(0, 0));
  byId("side").addEventListener("click", () => turn(90, 0));
  byId("filters").addEventListener("input", filter);
  list.addEventListener("click", (event) => {
    const row = event.target instanceof Element ? event.target.closest("li") : null;
    if (row) void choose(Number(row.dataset.walk));
  });
}

/** @param {number} by */
function step(by) {
  play(false);
  seek(state.frame + by);
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = event.target instanceof HTMLElement ? event.target : document.body;
  if (at.matches("input, select, textarea") || (event.key === " " && at.matches("button"))) return;
  const far = event.shiftKey ? 10 : 1;
  /** @type {Record<string, () => void>} */
  const does = {
    ArrowLeft: () => step(-far),
    ArrowRight: () => step(far),
    Home: () => step(-Infinity),
    End: () => step(Infinity),
    " ": () => play(!state.playing),
    PageUp: () => chooseNext(-1),
    PageDown: () => chooseNext(1),
    Escape: () => pin(state.pinned),
  };
  if (at === list) Object.assign(does, { ArrowUp: () => chooseNext(-1), ArrowDown: () => chooseNext(1) });
  if (at === raster) Object.assign(does, { ArrowUp: () => chooseRow(-1), ArrowDown: () => chooseRow(1), Enter: pinRow });
  const action = does[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function begin() {
  tellRun(page);
  fillFilters(page);
  filter();
  listenToEdges();
  listenToControls();
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => followLink());
  addEventListener("resize", redrawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    state.theme = currentTheme();
    redrawAll();
  });
  if (!followLink()) void choose(shown[0] ?? 0);
}

begin();
