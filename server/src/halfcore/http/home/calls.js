// The call that the form makes, for other clients: text to paste into a terminal or a program.

import { bodyOf, isNamed } from "./form.js";
import { text } from "./page.js";

/** The clients in the order of the tabs: name → function that writes the call. */
export const clients = { curl, "Python requests": requests, MLflow: mlflow, tritonclient: triton };

const pythonWords = { null: "None", true: "True", false: "False" };

/**
 * A call.
 * call: {model, values, address (of the server, with a slash at the end), isDefault, key}
 */
export function snippet(client, call) {
  return clients[client](call);
}

function curl({ model, values, address, isDefault, key }) {
  const lines = [
    `curl -s ${quoted(address + predictPath(model, isDefault))}`,
    "-H 'content-type: application/json'",
    ...(key ? ['-H "X-API-Key: $API_KEY"'] : []),
    `-d ${quoted(literal(bodyOf(model, values), {}, isNamed(model)))}`,
  ];
  return lines.join(" \\\n  ");
}

function requests({ model, values, address, isDefault, key }) {
  const body = literal(bodyOf(model, values), pythonWords, isNamed(model), "    ");
  return lines(
    ...(key ? ["import os", ""] : []),
    "import requests",
    "",
    "answer = requests.post(",
    `    ${string(address + predictPath(model, isDefault))},`,
    `    json=${body},`,
    ...(key ? ['    headers={"X-API-Key": os.environ["API_KEY"]},'] : []),
    "    timeout=10,",
    ")",
    "print(answer.json())",
  );
}

function mlflow({ model, values, address, key }) {
  const sent = values.filter(({ value }) => value !== undefined);
  const row = sent.map(({ value }) => value);
  const columns = sent.map(({ column }) => column.name);
  const inputs = isNamed(model)
    ? { dataframe_split: { columns, data: [row] } }
    : { instances: [row] };
  return lines(
    ...(key ? [`# ${text("mlflow_key")}`] : []),
    "from mlflow.deployments import get_deploy_client",
    "",
    `client = get_deploy_client(${string(address.slice(0, -1))})`,
    "answer = client.predict(",
    `    endpoint=${string(model.name)},`,
    `    inputs=${literal(inputs, pythonWords)},`,
    ")",
    "print(answer)",
  );
}

function triton(call) {
  const sent = call.values.filter(({ value }) => value !== undefined);
  if (sent.some(({ column, value }) => value === null && isText(column))) {
    return `# ${text("triton_null")}`;
  }
  const one = !isNamed(call.model) && sent.every(({ column }) => !isText(column));
  return one ? oneTensor(call, sent) : tensorPerColumn(call, sent);
}

function oneTensor(call, sent) {
  const row = sent.map(({ value }) => tensorValue(value)).join(", ");
  return lines(
    ...tritonBeginning(call),
    `rows = np.array([[${row}]], np.float64)`,
    'tensor = triton.InferInput("input", list(rows.shape), "FP64")',
    "tensor.set_data_from_numpy(rows)",
    ...tritonEnd(call, "[tensor]"),
  );
}

function tensorPerColumn(call, sent) {
  const columns = sent.map(({ column, value }) => {
    const [datatype, type] = tensorType(column, value);
    const array = `np.array([${tensorValue(value)}], ${type})`;
    return `    ${string(column.name)}: ("${datatype}", ${array}),`;
  });
  return lines(
    ...tritonBeginning(call),
    "columns = {",
    ...columns,
    "}",
    "tensors = []",
    "for name, (datatype, values) in columns.items():",
    "    tensor = triton.InferInput(name, [1], datatype)",
    "    tensor.set_data_from_numpy(values)",
    "    tensors.append(tensor)",
    ...tritonEnd(call, "tensors"),
  );
}

function tritonBeginning({ address, key }) {
  const { protocol, host, pathname } = new URL(address);
  const secure = protocol === "https:" ? ", ssl=True" : "";
  return [
    ...(key ? ["import os", ""] : []),
    "import numpy as np",
    "import tritonclient.http as triton",
    "",
    `client = triton.InferenceServerClient(${string((host + pathname).slice(0, -1))}${secure})`,
  ];
}

function tritonEnd({ model, key }, tensors) {
  const headers = key ? ', headers={"X-API-Key": os.environ["API_KEY"]}' : "";
  const names = Array.isArray(model.outputs.prediction)
    ? ["label", ...(model.outputs.probabilities ? ["probabilities"] : [])]
    : ["value"];
  const shown = names.map((name) => `answer.as_numpy("${name}")`).join(", ");
  return [`answer = client.infer(${string(model.name)}, ${tensors}${headers})`, `print(${shown})`];
}

function isText(column) {
  return column.kind === "text" || typeof column.categories?.[0] === "string";
}

/** The protocol's type and NumPy's; NaN, which stands for null, needs a floating-point one. */
function tensorType(column, value) {
  if (isText(column)) return ["BYTES", "np.object_"];
  if (value === null || column.kind === "number") return ["FP64", "np.float64"];
  return column.kind === "boolean" ? ["BOOL", "np.bool_"] : ["INT64", "np.int64"];
}

function tensorValue(value) {
  return value === null ? "np.nan" : literal(value, pythonWords);
}

/** Where the model is asked, below the server's address. */
export function predictPath(model, isDefault) {
  return isDefault ? "predict" : `models/${encodeURIComponent(model.name)}/predict`;
}

/** A JSON value as text, in JSON or with other words for null, true and false. */
function literal(value, words = {}, tall = false, indent = "") {
  const inner = (each) => literal(each, words);
  if (Array.isArray(value)) return `[${value.map(inner).join(", ")}]`;
  if (value !== null && typeof value === "object") {
    const members = Object.entries(value).map(([name, each]) => `${string(name)}: ${inner(each)}`);
    if (!tall) return `{${members.join(", ")}}`;
    return `{\n${members.map((each) => `${indent}  ${each}`).join(",\n")}\n${indent}}`;
  }
  const written = JSON.stringify(value);
  return words[written] ?? written;
}

function string(value) {
  return JSON.stringify(value);
}

/** In quotes for a POSIX shell. */
function quoted(value) {
  return `'${value.replaceAll("'", "'\\''")}'`;
}

function lines(...all) {
  return all.join("\n");
}
