// The list of walks: which are shown, in which order, and which one is chosen.

/** @import { Form, Page } from "./decode.js" */
import { byId, input, select } from "./dom.js";

/**
 * @typedef {object} Wanted
 * @property {string} text part of a name or person
 * @property {string} ofClass number of a class; empty for all
 * @property {string} person empty for all
 * @property {Record<string, string>} attributes of each the value, empty for all
 * @property {boolean} wrong only those of which the model is wrong
 * @property {string} sort
 */

/** @type {Record<string, (a: Form, b: Form) => number>} */
const ORDERS = {
  order: () => 0,
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
  sure: (a, b) => b.probability - a.probability,
  own: (a, b) => (a.ofOwn ?? 2) - (b.ofOwn ?? 2),
  moved: (a, b) => b.moved - a.moved,
  seeds: (a, b) => (a.agreement ?? 2) - (b.agreement ?? 2),
};

/** @param {Form} walk @returns {boolean} */
export function isWrong(walk) {
  return walk.ofClass !== null && walk.ofClass !== walk.predicted;
}

/**
 * @param {Form[]} walks
 * @param {Wanted} wanted
 * @returns {number[]} their numbers, in order
 */
export function chosenWalks(walks, wanted) {
  const text = wanted.text.toLocaleLowerCase();
  const fits = (/** @type {Form} */ walk) =>
    (!text || walk.name.toLocaleLowerCase().includes(text) || walk.subject.toLocaleLowerCase().includes(text)) &&
    (!wanted.ofClass || Number(wanted.ofClass) === (walk.ofClass ?? walk.predicted)) &&
    (!wanted.person || walk.subject === wanted.person) &&
    Object.entries(wanted.attributes).every(([name, value]) => !value || walk.attributes[name] === value) &&
    (!wanted.wrong || isWrong(walk));
  const order = ORDERS[wanted.sort] ?? ORDERS.order;
  return [...walks.keys()].filter((i) => fits(walks[i])).sort((a, b) => order(walks[a], walks[b]) || a - b);
}

/**
 * What can be filtered by beside class and person: attributes that differ, with few values.
 * @param {Form[]} walks
 * @returns {[string, string[]][]}
 */
export function attributesOf(walks) {
  /** @type {Map<string, Set<string>>} */
  const values = new Map();
  for (const walk of walks) {
    for (const [name, value] of Object.entries(walk.attributes)) values.set(name, (values.get(name) ?? new Set()).add(value));
  }
  return [...values].filter(([, of]) => of.size > 1 && of.size <= 40).map(([name, of]) => [name, [...of].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }))]);
}

/**
 * @param {HTMLElement} list
 * @param {Page} page
 * @param {number[]} numbers
 * @param {number} current
 */
export function fillList(list, page, numbers, current) {
  list.replaceChildren(
    ...numbers.map((i) => {
      const walk = page.walks[i];
      const row = document.createElement("li");
      row.id = `walk-${i}`;
      row.dataset.walk = String(i);
      row.setAttribute("role", "option");
      row.classList.toggle("wrong", isWrong(walk));
      const name = document.createElement("bdi");
      name.textContent = walk.name;
      const said = document.createElement("small");
      const truth = isWrong(walk) && walk.ofClass !== null ? `, is ${page.classes[walk.ofClass]}` : "";
      said.textContent = `says ${page.classes[walk.predicted]} (${walk.probability.toFixed(2)})${truth}`;
      row.append(name, said);
      return row;
    }),
  );
  markChosen(list, current);
}

/** @param {HTMLElement} list @param {number} current */
export function markChosen(list, current) {
  for (const row of list.children) row.setAttribute("aria-selected", String(row.id === `walk-${current}`));
  const row = document.getElementById(`walk-${current}`);
  if (row) {
    list.setAttribute("aria-activedescendant", row.id);
    if (row.offsetTop < list.scrollTop || row.offsetTop + row.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = row.offsetTop - list.clientHeight / 2;
    }
  }
}

/**
 * @param {HTMLSelectElement} select
 * @param {[string, string][]} options value and words
 */
export function fillSelect(select, options) {
  select.replaceChildren(
    ...options.map(([value, words]) => {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = words;
      return option;
    }),
  );
}

/** @param {Page} page */
export function fillFilters(page) {
  fillSelect(select("of-class"), [["", "all"], .../** @type {[string, string][]} */ (page.classes.map((name, i) => [String(i), name]))]);
  const people = [...new Set(page.walks.map((form) => form.subject))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  fillSelect(select("of-person"), [["", "all"], .../** @type {[string, string][]} */ (people.map((name) => [name, name]))]);
  for (const [name, values] of attributesOf(page.walks)) {
    const [label, choice] = [document.createElement("label"), document.createElement("select")];
    choice.dataset.name = name;
    fillSelect(choice, [["", "all"], .../** @type {[string, string][]} */ (values.map((value) => [value, value]))]);
    label.append(name, choice);
    byId("attributes").append(label);
  }
  for (const option of select("sort").options) {
    if (option.value === "own") option.hidden = page.walks.every((form) => form.ofClass === null);
    if (option.value === "seeds") option.hidden = page.walks.every((form) => form.agreement === null);
  }
}

/** What is chosen in the filters. @returns {Wanted} */
export function wanted() {
  /** @type {Record<string, string>} */
  const attributes = {};
  for (const one of byId("attributes").querySelectorAll("select")) attributes[one.dataset.name ?? ""] = one.value;
  return {
    text: input("find").value,
    ofClass: select("of-class").value,
    person: select("of-person").value,
    attributes,
    wrong: input("wrong").checked,
    sort: select("sort").value,
  };
}
