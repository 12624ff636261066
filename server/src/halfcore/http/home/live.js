// The live figures: counters that are read every two seconds while the page is visible.

import { ask, drawn, duration, element, number, text } from "./page.js";

const periodMs = 2000;
const kept = 60; // points of a curve: two minutes
const least = 10; // points of a curve's width at first: it grows as the points do
const span = 5; // periods over which quantiles are taken: ten seconds
const figures = ["requests", "refused", "batch", "queue", "cpu", "swaps"];

let samples = [];
let timer = null;

/** Read the figures from now on; `onSample` gets each, or null if the server does not answer. */
export function startLive(place, onSample) {
  const next = async () => {
    const sample = await read();
    if (sample !== undefined) onSample(sample);
    if (sample) showLive(place);
    timer = document.visibilityState === "visible" ? setTimeout(next, periodMs) : null;
  };
  document.addEventListener("visibilitychange", () => {
    if (timer === null && document.visibilityState === "visible") timer = setTimeout(next, 0);
  });
  timer = setTimeout(next, 0);
}

/** Draw the figures in the page's language. */
export function showLive(place) {
  if (samples.length === 0) return;
  const points = samples.slice(1).map((sample, i) => rates(samples[i], sample));
  place.replaceChildren(
    element("ul", { class: "tiles" }, ...figures.map((name) => tile(name, points))),
    stages(),
  );
}

async function read() {
  try {
    const answer = await ask("home/figures");
    if (!answer.ok) return undefined; // refused: there is nothing to show
    samples = [...samples, await answer.json()].slice(-kept - 1);
    return samples.at(-1);
  } catch {
    return null; // the server does not answer
  }
}

/** What happened between two samples. */
function rates(before, after) {
  const seconds = Math.max(after.at - before.at, 1e-3);
  // A counter falls if the server was started again.
  const grown = (name) => Math.max(0, after[name] - before[name]);
  const batches = grown("batches");
  return {
    requests: grown("answered") / seconds,
    refused: grown("refused") / seconds,
    batch: batches ? grown("rows") / batches : null,
    queue: after.queued_rows,
    cpu: grown("cpu_seconds") / seconds,
    swaps: after.swaps,
  };
}

function tile(name, points) {
  const values = points.map((point) => point[name]);
  const last = values.at(-1) ?? null;
  const quota = name === "cpu" ? samples.at(-1).cpu_quota : null;
  const shown = last === null ? "–" : number(last, last < 1 ? 2 : 3);
  return element(
    "li",
    {},
    element("span", { class: "hint" }, text(`live_${name}`)),
    element("b", {}, quota ? text("of", { value: shown, most: number(quota) }) : shown),
    curve(values, quota ?? 0),
  );
}

/** A curve that ends at the right edge, from 0 to its largest value or to `top`. */
function curve(values, top) {
  const most = Math.max(top, 1e-9, ...values);
  const width = Math.max(least, values.length) - 1;
  const x = (i) => 100 - (100 * (values.length - 1 - i)) / width;
  const y = (value) => 23 - (22 * value) / most;
  const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
  return drawn(
    "svg",
    { viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    drawn("polyline", { points: points.join(" "), "vector-effect": "non-scaling-stroke" }),
  );
}

function stages() {
  const after = samples.at(-1);
  const before = samples.at(-1 - span) ?? samples[0];
  const rows = Object.keys(after.stages).map((stage) => {
    const earlier = before.stages[stage];
    const counts = after.stages[stage].map((count, i) => Math.max(0, count - earlier[i]));
    const cell = (share) => element("td", {}, quantile(after.bounds, counts, share));
    const title = element("th", { scope: "row" }, text(`stage_${stage}`));
    return element("tr", {}, title, cell(0.5), cell(0.99));
  });
  const head = ["stage", "p50", "p99"].map((key) => element("th", { scope: "col" }, text(key)));
  return element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows),
  );
}

/** A quantile of a histogram, between the bounds of its bucket as Prometheus computes it. */
function quantile(bounds, counts, share) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total === 0) return "–";
  let rank = share * total;
  const bucket = counts.findIndex((count) => {
    if (count >= rank) return true;
    rank -= count;
    return false;
  });
  if (bucket >= bounds.length) return `> ${duration(bounds.at(-1))}`;
  const low = bucket === 0 ? 0 : bounds[bucket - 1];
  return duration(low + ((bounds[bucket] - low) * rank) / counts[bucket], 2);
}
