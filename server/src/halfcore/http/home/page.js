// What all parts of the page use: its texts in both languages, numbers, and elements.

const texts = await (await fetch(new URL("texts.json", import.meta.url))).json();
const languages = ["en", "es"];
const remembered = "halfcore-language";

/** The language of the page: the one chosen before, or the browser's first that the page has. */
export let language = chosen() ?? preferred();

function chosen() {
  try {
    const kept = localStorage.getItem(remembered);
    return languages.includes(kept) ? kept : null;
  } catch {
    return null; // the browser keeps nothing
  }
}

function preferred() {
  const wanted = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());
  return wanted.find((tag) => languages.includes(tag)) ?? languages[0];
}

/** Change to the other language. */
export function switchLanguage() {
  language = otherLanguage();
  try {
    localStorage.setItem(remembered, language);
  } catch {
    // the browser keeps nothing: the choice holds until the page is left
  }
}

export function otherLanguage() {
  return languages.find((tag) => tag !== language);
}

/** A text of the table, with values in its {places}. */
export function text(key, values = {}) {
  return texts[key][language].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export function hasText(key) {
  return Object.hasOwn(texts, key);
}

/** Fill in the texts that stand in the page itself. */
export function translate() {
  document.documentElement.lang = language;
  for (const place of document.querySelectorAll("[data-text]")) {
    place.textContent = text(place.dataset.text);
  }
  for (const place of document.querySelectorAll("[data-label]")) {
    place.setAttribute("aria-label", text(place.dataset.label));
  }
}

/** A number as the language writes it. */
export function number(value, digits = 3, more = {}) {
  const options = { maximumSignificantDigits: digits, ...more };
  return new Intl.NumberFormat(language, options).format(value);
}

/** A share of one, with one digit after the point. */
export function percent(share) {
  const options = { style: "percent", maximumFractionDigits: 1 };
  const written = (value) => new Intl.NumberFormat(language, options).format(value);
  return share > 0 && share < 0.0005 ? `< ${written(0.001)}` : written(share);
}

/** A difference, which is often tiny. */
export function tiny(value) {
  if (value === 0 || Math.abs(value) >= 1e-3) return number(value);
  return value.toExponential(1).replace(/^[^e]+/, (factor) => number(Number(factor)));
}

/** A number with all its digits. */
export function exact(value) {
  return typeof value === "number" ? number(value, 17, { useGrouping: false }) : String(value);
}

/** A duration in the unit that fits it. */
export function duration(seconds, digits = 3) {
  const [factor, unit] = seconds < 1e-3 ? [1e6, "µs"] : seconds < 1 ? [1e3, "ms"] : [1, "s"];
  return `${number(seconds * factor, digits)} ${unit}`;
}

const units = [["second", 60], ["minute", 60], ["hour", 24], ["day", Infinity]];

/** How long ago a moment was, in words. */
export function ago(moment) {
  let amount = Math.max(0, (Date.now() - Date.parse(moment)) / 1000);
  for (const [unit, size] of units) {
    if (amount < size) {
      const words = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
      return words.format(-Math.floor(amount), unit);
    }
    amount /= size;
  }
  return "";
}

/** Write a text that screen readers announce, but not again if it is there already. */
export function announce(place, written) {
  if (place.textContent !== written) place.textContent = written;
}

export function byId(id) {
  return document.getElementById(id);
}

/** An element; its children are elements or texts, and a text is never read as HTML. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
export function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? "" : value);
    }
  }
  made.append(...children);
  return made;
}

let apiKey = "";
let keyNeeded = false;

/** Whether this server asked for an API key. */
export function needsKey() {
  return keyNeeded;
}

/** Keep the key for this visit only. */
export function setKey(key) {
  apiKey = key.trim();
}

/** Ask this server; a 401 shows the field for the API key. */
export async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(apiKey && { "x-api-key": apiKey }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    keyNeeded = true;
    byId("key-row").hidden = false;
  }
  return answer;
}
