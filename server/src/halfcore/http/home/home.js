// The page: which models there are, which one is asked, and what the parts show of it.

import { showAnswer, showProblem } from "./answer.js";
import { clients, predictPath, snippet } from "./calls.js";
import * as form from "./form.js";
import { showLive, startLive } from "./live.js";
import { ago, announce, ask, byId, element, hasText, needsKey, number } from "./page.js";
import { otherLanguage, setKey, switchLanguage, text, tiny, translate } from "./page.js";

const samplesUntilReload = 8; // 16 seconds: what the state is, which no figure says
const address = new URL(".", document.baseURI).href;
const state = {
  health: null, // GET /health
  models: [], // GET /models/NAME of each, by name
  chosen: null,
  client: Object.keys(clients)[0],
  answered: null, // draws the last answer
  silent: false, // the server does not answer
  missing: null, // the model that the address names, if it is not served
  versions: null, // of the models that are shown; null: not known yet
  quietSamples: 0, // since the models were read
};
let asked = 0;

// -- the models ---------------------------------------------------------------------------------

async function load() {
  const answers = await Promise.all([ask("models"), ask("health")]);
  if (!answers.every((answer) => answer.ok)) return;
  const [{ models }, health] = await Promise.all(answers.map((answer) => answer.json()));
  const names = models.map(({ name }) => name).sort();
  const details = await Promise.all(
    names.map(async (name) => {
      const answer = await ask(`models/${encodeURIComponent(name)}`);
      return answer.ok ? answer.json() : null; // gone since the list was made
    }),
  );
  state.health = health;
  state.models = details.filter((model) => model !== null);
  choose();
  showModels();
}

/** Ask the model that the address names after its #, or the default one. */
function choose() {
  const named = state.models.find((model) => linkTo(model) === location.hash);
  state.missing = named ? null : namedModel();
  const chosen = named ?? state.models.find(isDefault) ?? state.models[0] ?? null;
  const before = state.chosen;
  state.chosen = chosen;
  byId("model").hidden = chosen === null;
  if (chosen === null) return;
  const same = before !== null && before.name === chosen.name && sameColumns(before, chosen);
  if (same) {
    showAbout(); // the fields stay as they are: somebody may be writing in one
    showCall();
    return;
  }
  forget();
  showModel(null);
  if (before?.name !== chosen.name) return;
  const { name: model, version } = chosen;
  state.answered = () => showProblem(byId("answer"), text("columns_changed", { model, version }));
  state.answered();
}

/** What stands behind #model= in the address, or null. */
function namedModel() {
  const [, name = ""] = /^#model=(.*)$/.exec(location.hash) ?? [];
  try {
    return decodeURIComponent(name) || null;
  } catch {
    return name;
  }
}

function linkTo(model) {
  return `#model=${encodeURIComponent(model.name)}`;
}

function isDefault(model) {
  return model.name === state.health.default_model;
}

function sameColumns(one, other) {
  return JSON.stringify(one.inputs) === JSON.stringify(other.inputs);
}

function forget() {
  state.answered = null;
  setBusy(false);
  asked += 1; // what is on its way belongs to another model
  byId("answer").replaceChildren(element("p", { class: "hint" }, text("no_answer")));
}

function setBusy(busy) {
  if (busy) byId("answer").setAttribute("aria-busy", "true");
  else byId("answer").removeAttribute("aria-busy");
}

function showModels() {
  const focused = state.models.map(linkTo).indexOf(document.activeElement?.getAttribute("href"));
  byId("models").replaceChildren(...state.models.map(card));
  byId("models").children[focused]?.firstChild.focus();
  const reasons = (state.health?.reasons ?? []).map((reason) => element("p", {}, reason));
  const model = state.missing;
  const none = state.models.length
    ? model === null ? [] : [element("p", {}, text("no_such_model", { model }))]
    : [element("p", {}, text("no_models"))];
  const all = [...none, ...reasons];
  const boxes = all.length ? [element("div", { class: "problem" }, ...all)] : [];
  const said = byId("reasons").textContent; // what is there already is not announced again
  if (said !== all.map((each) => each.textContent).join("")) {
    byId("reasons").replaceChildren(...boxes);
  }
}

function card(model) {
  const { name, version, loaded_at, parity } = model;
  const fact = (...what) => element("span", { class: "fact" }, ...what);
  const age = element("time", { datetime: loaded_at });
  const facts = [
    fact(text("version", { version }) + aliasOf(model)),
    fact(age),
    fact(text("parity", { rows: number(parity.rows, 9), wrong: parity.label_mismatches })),
    ...(parity.warnings ?? []).map((warning) => fact(`⚠ ${warning}`)),
  ];
  showAge(age);
  return element(
    "li",
    {},
    element(
      "a",
      {
        href: linkTo(model),
        "aria-current": state.chosen?.name === name ? "true" : null,
      },
      element("b", {}, name),
      ...(isDefault(model) ? [element("span", { class: "badge" }, "/predict")] : []),
      ...facts,
    ),
  );
}

function showAge(time) {
  time.textContent = text("loaded", { ago: ago(time.dateTime) });
}

/** ` · @champion` or ` · Production`, if the model's URI names one. */
function aliasOf(model) {
  const uri = model.following?.champion?.uri ?? model.source.uri;
  const [, sign, name] = /^models:\/[^@]*?([@/])([^@/]+)$/.exec(uri) ?? [];
  return name && !/^\d+$/.test(name) ? ` · ${sign === "@" ? "@" : ""}${name}` : "";
}

// -- the chosen model ---------------------------------------------------------------------------

function showModel(values) {
  showAbout();
  form.showForm(byId("fields"), state.chosen, values);
  showCall();
}

function showAbout() {
  const model = state.chosen;
  byId("try-title").textContent = text("try", { model: model.name });
  const { rows, max_abs_diff, data_origin } = model.parity;
  const origin = data_origin ? text("origin", { origin: originOf(data_origin) }) : "";
  byId("about").textContent =
    text("proof", { rows: number(rows, 9), difference: tiny(max_abs_diff) }) + origin;
}

/** Where the rows of the proof are from; the exporter says it in English. */
function originOf(origin) {
  const [, dataset] = /^the dataset '(.*)' logged to the run$/.exec(origin) ?? [];
  if (dataset) return text("origin_dataset", { dataset });
  return origin === "the model's input example" ? text("origin_example") : origin;
}

function showCall() {
  if (state.chosen === null) return;
  byId("snippet").textContent = snippet(state.client, {
    model: state.chosen,
    values: form.readValues(),
    address,
    isDefault: isDefault(state.chosen),
    key: needsKey(),
  });
}

async function predict(event) {
  event.preventDefault();
  const model = state.chosen;
  const wrong = form.unreadable();
  form.showErrors(wrong);
  if (wrong.length) {
    asked += 1; // an answer that is on its way belongs to other values
    setBusy(false);
    state.answered = () => {
      form.showErrors(wrong, { focus: false });
      showProblem(byId("answer"), text("see_fields"));
    };
    showProblem(byId("answer"), text("see_fields"));
    return;
  }
  const turn = (asked += 1);
  setBusy(true);
  const begin = performance.now();
  let answer;
  let body = null;
  try {
    answer = await ask(predictPath(model, isDefault(model)), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(form.bodyOf(model, form.readValues())),
    });
    body = await answer.json();
  } catch {
    // no answer, or not this server's: said below
  }
  const seconds = (performance.now() - begin) / 1000;
  if (turn !== asked) return; // a later one was sent
  setBusy(false);
  state.answered =
    answer?.ok && body !== null
      ? () => showAnswer(byId("answer"), body, seconds, timingOf(answer))
      : (options) => showRefusal(answer, body, options);
  state.answered();
  if (answer?.ok) byId("answer").scrollIntoView({ block: "nearest" });
  if (answer?.status === 401) {
    showCall();
    byId("key").focus();
  }
}

function showRefusal(answer, problem, options) {
  const place = byId("answer");
  if (problem === null) {
    showProblem(place, text(answer ? "not_json" : "silent"));
    return;
  }
  const errors = problem.errors ?? [];
  const rest = form.showErrors(errors, options).map(form.sentence);
  const atFields = errors.length > 0 && rest.length === 0;
  showProblem(place, atFields ? text("see_fields") : problemText(problem), rest);
}

/** The page's words for a problem, if it has some, or the server's. */
function problemText({ code, detail }) {
  return hasText(`problem_${code}`) ? text(`problem_${code}`) : detail ?? text("not_json");
}

function timingOf(answer) {
  const header = answer.headers.get("server-timing") ?? "";
  return header.replace(/;dur=([\d.]+)/g, " $1 ms");
}

// -- tabs ---------------------------------------------------------------------------------------

function showTabs() {
  const tabs = Object.keys(clients).map((client) => {
    const selected = client === state.client;
    const tab = element(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${client.replaceAll(" ", "-")}`,
        "aria-selected": String(selected),
        "aria-controls": "snippet",
        tabindex: selected ? 0 : -1,
      },
      client,
    );
    tab.addEventListener("click", () => openTab(client));
    if (selected) byId("snippet").setAttribute("aria-labelledby", tab.id);
    return tab;
  });
  byId("tabs").replaceChildren(...tabs);
}

function openTab(client) {
  state.client = client;
  showTabs();
  showCall();
  byId("tabs").querySelector("[aria-selected=true]").focus();
}

function moveTab(event) {
  const names = Object.keys(clients);
  const at = names.indexOf(state.client);
  const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 };
  if (!(event.key in moves)) return;
  event.preventDefault();
  openTab(names.at(moves[event.key] % names.length));
}

async function copy() {
  const shown = byId("snippet");
  try {
    await navigator.clipboard.writeText(shown.textContent);
  } catch {
    // No clipboard on an address without TLS: mark the text, and copy as a keyboard does.
    getSelection().selectAllChildren(shown);
    document.execCommand("copy");
  }
  byId("copy").textContent = text("copied");
  setTimeout(() => (byId("copy").textContent = text("copy")), 1500);
}

// -- the whole page -----------------------------------------------------------------------------

function showState() {
  const known = state.silent ? "silent" : `state_${state.health?.status ?? "loading"}`;
  announce(byId("state"), text(known));
  byId("state").dataset.state = state.silent ? "silent" : state.health?.status ?? "";
  byId("version").textContent = state.health?.version ?? "";
}

function showAll() {
  translate();
  byId("language").textContent = text("language");
  byId("language").lang = otherLanguage();
  byId("copy").textContent = text("copy");
  showState();
  showTabs();
  if (state.health) showModels();
  if (state.chosen) {
    showModel(form.writtenValues());
    if (state.answered) state.answered({ focus: false });
    else forget();
  }
  showLive(byId("figures"));
}

async function reload() {
  try {
    await load();
    showState();
  } catch {
    state.versions = ""; // the server does not answer: asked again with the next figures
  }
}

function onSample(sample) {
  state.silent = sample === null;
  showState();
  if (sample === null) return;
  document.querySelectorAll("#models time").forEach(showAge);
  const versions = JSON.stringify(sample.models);
  state.quietSamples += 1;
  const due = state.quietSamples >= samplesUntilReload;
  const changed = versions !== (state.versions ?? versions);
  state.versions = versions;
  if (state.health && !changed && !due) return;
  state.quietSamples = 0;
  reload();
}

byId("form").addEventListener("submit", predict);
byId("form").addEventListener("reset", (event) => {
  event.preventDefault();
  forget();
  showModel(null);
});
byId("form").addEventListener("input", showCall);
byId("tabs").addEventListener("keydown", moveTab);
byId("copy").addEventListener("click", copy);
byId("key").addEventListener("input", () => setKey(byId("key").value));
byId("key").addEventListener("change", reload);
byId("language").addEventListener("click", () => {
  switchLanguage();
  showAll();
});
addEventListener("hashchange", () => {
  if (!state.health) return;
  choose();
  showModels();
});

showAll();
await reload();
startLive(byId("figures"), onSample);
