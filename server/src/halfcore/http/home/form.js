// The form of one model: a field for each of its columns, filled with the example.

import { element, exact, hasText, text } from "./page.js";

let fields = [];

/** Whether the model's columns have names, so that a row is a record. */
export function isNamed(model) {
  return !Array.isArray(model.example.features);
}

/** Show a model's fields in a place. Without values the example is filled in. */
export function showForm(place, model, values = null) {
  fields = model.inputs.map((column, i) => field(column, i, model));
  place.replaceChildren(...fields.map((each) => each.whole));
  fields.forEach(({ control, column }, i) => {
    control.value = values === null ? written(column, column.example) : values[i];
  });
}

/** What is written in the fields, to be filled in again. */
export function writtenValues() {
  return fields.map(({ control }) => control.value);
}

/** Column by column: the value, which is undefined if the column is left out. */
export function readValues() {
  return fields.map(({ column, control, named }) => {
    return { column, value: read(column, control, named) };
  });
}

/** The row as a request sends it. */
export function bodyOf(model, values) {
  if (!isNamed(model)) return { features: values.map(({ value }) => value) };
  const sent = values.filter(({ value }) => value !== undefined);
  return Object.fromEntries(sent.map(({ column, value }) => [column.name, value]));
}

/** The fields in which no number stands. */
export function unreadable() {
  return fields
    .filter(({ control }) => control.validity.badInput)
    .map(({ column }) => ({ field: column.name, code: "not_a_number" }));
}

/** Show each error at the field that it names, go to the first, return those that name none. */
export function showErrors(errors, { focus = true } = {}) {
  for (const { control, error } of fields) {
    control.removeAttribute("aria-invalid");
    error.textContent = "";
  }
  const rest = [];
  let first = null;
  for (const each of errors) {
    const found = fields.find(({ column }) => column.name === each.field);
    if (!found) {
      rest.push(each);
      continue;
    }
    found.control.setAttribute("aria-invalid", "true");
    found.error.textContent = sentence(each);
    first ??= found.control;
  }
  if (focus) first?.focus();
  return rest;
}

/** An error in words: the page's, if it has some for the code, or the server's. */
export function sentence({ code, message, got, expected }) {
  if (!hasText(`error_${code}`)) return message;
  const wanted = Array.isArray(expected) ? expected.join(", ") : kind(expected ?? "");
  return text(`error_${code}`, { got: JSON.stringify(got ?? null), expected: wanted });
}

function kind(expected) {
  return hasText(`kind_${expected}`) ? text(`kind_${expected}`) : String(expected);
}

function field(column, i, model) {
  const id = `field-${i}`;
  const control = controlOf(column, id);
  const hint = element("p", { class: "hint", id: `${id}-hint` }, hintOf(column));
  const error = element("p", { class: "error", id: `${id}-error` });
  control.id = id;
  control.setAttribute("aria-describedby", `${hint.id} ${error.id}`);
  const list = isFree(column) ? [suggestions(column, id)] : [];
  const label = element("label", { for: id }, column.name);
  const whole = element("div", { class: "field" }, label, control, ...list, hint, error);
  return { column, control, error, whole, named: isNamed(model) };
}

/** Whether a category may be another one than those that are known. */
function isFree(column) {
  return Boolean(column.categories && column.accepts_unknown);
}

function controlOf(column, id) {
  if (column.kind === "text") {
    return element("textarea", { rows: 2, maxlength: column.text.max_length });
  }
  if (isFree(column)) {
    return element("input", { list: `${id}-list`, autocomplete: "off" });
  }
  if (column.categories || column.kind === "boolean") return choice(column);
  return element("input", {
    type: "number",
    step: column.kind === "integer" ? 1 : "any",
    min: column.allowed?.minimum,
    max: column.allowed?.maximum,
    autocomplete: "off",
  });
}

function choice(column) {
  const known = column.categories ?? [true, false];
  const values = column.nullable ? [...known, null] : known;
  const options = values.map((value) =>
    element("option", { value: JSON.stringify(value) }, value === null ? "null" : String(value)),
  );
  const absent = Object.hasOwn(column, "default") ? [element("option", { value: "" }, "")] : [];
  return element("select", {}, ...options, ...absent);
}

function suggestions(column, id) {
  const options = column.categories.map((value) => element("option", { value }));
  return element("datalist", { id: `${id}-list` }, ...options);
}

function hintOf(column) {
  const parts = [];
  const allowed = range(column.allowed);
  if (allowed) parts.push(text("allowed", { range: allowed }));
  const seen = range(column);
  if (seen) parts.push(text("seen", { range: seen }));
  if (isFree(column)) parts.push(text("free"));
  if (Object.hasOwn(column, "default")) {
    parts.push(text("default", { value: String(column.default) }));
  } else if (column.nullable && !isChoice(column)) parts.push(text("empty_is_null"));
  return parts.join(" · ");
}

function isChoice(column) {
  return column.kind === "boolean" || Boolean(column.categories && !column.accepts_unknown);
}

function range(bounds) {
  const { minimum = null, maximum = null } = bounds ?? {};
  if (minimum === null && maximum === null) return "";
  if (minimum === null) return `≤ ${exact(maximum)}`;
  return maximum === null ? `≥ ${exact(minimum)}` : `${exact(minimum)} – ${exact(maximum)}`;
}

/** A value as its control holds it. */
function written(column, value) {
  if (isChoice(column)) return JSON.stringify(value);
  return value === null ? "" : String(value);
}

function read(column, control, named) {
  const typed = control.value;
  if (isChoice(column)) return typed === "" ? absent(column, named) : JSON.parse(typed);
  if (column.kind === "text") return typed;
  if (typed === "") return absent(column, named);
  const isNumber = column.categories ? typeof column.categories[0] === "number" : true;
  // A word where a number belongs is sent as it is: the server says what it expects.
  return isNumber && Number.isFinite(Number(typed)) ? Number(typed) : typed;
}

/** What an empty field means: the column is left out if it has a default, otherwise null. */
function absent(column, named) {
  return named && Object.hasOwn(column, "default") ? undefined : null;
}
