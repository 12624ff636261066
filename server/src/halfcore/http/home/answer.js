// The answer to a prediction, or what was wrong with it.

import { duration, element, exact, percent, text } from "./page.js";

const mostBars = 20;

/** Show an answer and the seconds that it took. */
export function showAnswer(place, answer, seconds, timing) {
  const { prediction, probabilities, model, version } = answer;
  const values = Array.isArray(prediction) ? prediction : [prediction];
  const took = text("took", { time: duration(seconds) });
  place.replaceChildren(
    element("p", { class: "prediction" }, values.map(exact).join(", ")),
    ...(probabilities ? [bars(probabilities, prediction)] : []),
    element("p", { class: "hint" }, `${text("from", { model, version })} · ${took}`),
    ...(timing ? [element("p", { class: "hint" }, text("stages_took", { timing }))] : []),
  );
}

/** Show what was wrong: a sentence, and the errors that no field of the form has. */
export function showProblem(place, sentence, more = []) {
  const items = more.map((each) => element("li", {}, each));
  place.replaceChildren(
    element("div", { class: "problem" }, element("p", {}, sentence), element("ul", {}, ...items)),
  );
}

function bars(probabilities, predicted) {
  const sorted = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
  const rows = sorted.slice(0, mostBars).map(([label, share]) => bar(label, share, predicted));
  const rest = sorted.length - mostBars;
  const more = rest > 0 ? [element("li", { class: "hint" }, text("more", { count: rest }))] : [];
  return element("ul", { class: "bars" }, ...rows, ...more);
}

/** Whether a name among the probabilities is that of a class: 1.0 is "1.0", true is "True". */
function isLabel(label, prediction) {
  if (typeof prediction === "number") return Number(label) === prediction;
  if (typeof prediction === "boolean") return label.toLowerCase() === String(prediction);
  return label === prediction;
}

function bar(label, share, predicted) {
  const filled = element("span", { class: "filled" });
  filled.style.width = `${Math.min(1, Math.max(0, share)) * 100}%`;
  return element(
    "li",
    { class: isLabel(label, predicted) ? "predicted" : null },
    element("span", { class: "label" }, label),
    element("span", { class: "bar", "aria-hidden": "true" }, filled),
    element("span", { class: "share" }, percent(share)),
  );
}
