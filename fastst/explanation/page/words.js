// What is said in words: never markup, always text.

/** @import { Form, Page, Walk } from "./decode.js" */
/** @import { Edge, Look } from "./figure.js" */
import { probabilityOf } from "./decode.js";
import { alike, keptOfSlots, mostInWords, ofJoints } from "./body.js";
import { byId } from "./dom.js";

/** @param {number} share @returns {string} */
export function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/** @param {Page} page @param {number} slot @returns {string} */
export function slotInWords(page, slot) {
  const [src, dst, offset] = page.skeleton.slots;
  const frames = Math.abs(offset[slot]);
  const when = offset[slot] === 0 ? "" : ` ${frames} frame${frames > 1 ? "s" : ""} ${offset[slot] < 0 ? "before" : "later"}`;
  return `${page.skeleton.joints[src[slot]]}${when} → ${page.skeleton.joints[dst[slot]]}`;
}

/**
 * @param {Page} page
 * @param {Walk} walk
 * @param {number} slot
 * @param {number} frame
 * @returns {string}
 */
export function cellInWords(page, walk, slot, frame) {
  const at = slot * walk.form.frames + frame;
  const words = `${slotInWords(page, slot)}, frame ${frame}`;
  if (!walk.likely[at]) return `${words}: no edge here`;
  return `${words}: keep probability ${percent(probabilityOf(walk.likely[at]))}, ${walk.kept[at] ? "kept" : "not kept"}`;
}

/**
 * The frame for somebody who does not see it.
 * @param {Page} page
 * @param {Walk} walk
 * @param {number} frame
 * @param {Edge[]} edges the likeliest last
 * @returns {string}
 */
export function frameInWords(page, walk, frame, edges) {
  const of = `Frame ${frame} of ${walk.form.frames}, says ${page.classes[walk.form.predicted]}`;
  if (!walk.form.slots) return `${of}.`;
  if (!edges.length) return `${of}: no kept edge is shown.`;
  const top = edges.slice(-3).reverse().map((edge) => `${slotInWords(page, edge.slot)} (${percent(edge.probability)})`);
  return `${of}: ${edges.length} kept edges; the likeliest: ${top.join("; ")}.`;
}

/** @param {Page} page @param {Walk} of @param {boolean} mirrored @returns {string} */
export function captionOf(page, of, mirrored) {
  const is = of.form.ofClass === null ? "class not known" : `is ${page.classes[of.form.ofClass]}`;
  const seen = of.form.dimensions === 2 ? "as in the image" : "drag to turn";
  const planted = page.skeleton.planted.map((joint) => page.skeleton.joints[joint]).join(", ");
  const ringed = planted && ` · ringed: planted (${planted})`;
  const said = `says ${page.classes[of.form.predicted]} (${of.form.probability.toFixed(2)}), ${is}`;
  const run = page.beside ? `, run ${of.form.run ?? page.run}` : "";
  return `${of.form.name}${run}: ${said} · ${mirrored ? "picture mirrored, edges as they were kept" : seen}${ringed}`;
}

/** Which joints' edges were kept most; that alone is no reason. @param {Page} page @param {Walk} walk @returns {string} */
export function whereInWords(page, walk) {
  if (!walk.form.slots) return "";
  const shares = ofJoints(keptOfSlots(walk), page.skeleton, "sends");
  const most = mostInWords(shares, page.skeleton.joints);
  if (!most) return "";
  const warning = page.verdict.code === "edges_decide" ? "" : " By what was found of the run, these must not be taken for the reason.";
  return `Of the edges out of a joint it kept most of ${most}; of all joints alike ${percent(alike(shares))}.${warning}`;
}

/** @param {Page} page */
export function tellRun(page) {
  const { verdict } = page;
  const box = byId("verdict");
  box.dataset.code = verdict.code;
  sentence(byId("quote"), "May be quoted of this run: ", verdict.quote);
  sentence(byId("not"), "", verdict.not);
  byId("about").textContent = `Run ${page.run} · ${page.walks.length} walk${page.walks.length > 1 ? "s" : ""} · classes ${page.classes.join(", ")}`;
  byId("made").textContent = `fastst ${page.version} · run ${page.run} · seed ${page.seed} · data ${page.data}${page.notes.map((note) => ` · ${note}`).join("")}`;
  byId("no-edges").textContent = page.noEdges ?? "";
  byId("no-edges").hidden = page.noEdges === null;
}

/** @param {HTMLElement} at @param {string} lead @param {string} words */
function sentence(at, lead, words) {
  const strong = document.createElement("strong");
  strong.textContent = lead;
  at.replaceChildren(strong, words);
}

/** @param {Page} page @param {Form} walk */
export function tellWalk(page, walk) {
  byId("name").textContent = walk.name;
  tellNumbers(page, walk, byId("sentences"), byId("graphs"));
}

/** What another run says of the walk. @param {Page} page @param {Form | null} walk nothing of one of the page's own run */
export function tellBeside(page, walk) {
  const told = walk !== null && walk.run !== null && page.beside !== null;
  byId("other-run").hidden = !told;
  if (!told) return;
  byId("other-name").textContent = `The same walk, run ${walk.run}`;
  sentence(byId("other-quote"), "May be quoted of that run: ", `${page.beside?.verdict.quote} ${page.beside?.verdict.not} ${page.beside?.noEdges ?? ""}`);
  tellNumbers(page, walk, byId("other-sentences"), byId("other-graphs"));
}

/** @param {Page} page @param {Form} walk @param {HTMLElement} sentences @param {HTMLElement} table */
function tellNumbers(page, walk, sentences, table) {
  sentences.classList.toggle("wrong", walk.ofClass !== null && walk.ofClass !== walk.predicted);
  sentences.replaceChildren(
    ...walk.sentences.map((words) => {
      const paragraph = document.createElement("p");
      paragraph.textContent = words;
      return paragraph;
    }),
  );
  const rows = walk.rows.map(([graph, says, probability, same]) => {
    const row = document.createElement("tr");
    row.classList.toggle("other", !same);
    const [left, right] = [document.createElement("td"), document.createElement("td")];
    left.textContent = graph;
    right.className = "says";
    right.textContent = `${page.classes[says]} ${probability.toFixed(2)}`;
    row.append(left, right);
    return row;
  });
  table.querySelector("tbody")?.replaceChildren(...rows);
}

/** @param {Page} page @param {Look} look @param {Form} walk @returns {string} what colours stand for */
export function scaleInWords(page, look, walk) {
  if (look.mode === "chance") return "keep probability less that of all edges of the walk: −50 % to +50 %";
  const of = walk.ofClass ?? walk.predicted;
  const mean = page.means[of];
  if (look.mode === "class" && mean) {
    const alone = mean.walks === 1 ? ", which is this walk itself" : ", this walk among them";
    return `keep probability less the mean of “${page.classes[of]}” (${mean.walks} walks of ${mean.people} people${alone}): −50 % to +50 %`;
  }
  return "keep probability of kept edges: 0 % to 100 %; pale: not kept";
}
