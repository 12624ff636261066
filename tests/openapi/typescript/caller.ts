// A client with the types that openapi-typescript makes of the API's description: it compiles only
// if requests and answers have these types, and prints one line of JSON for each prediction.
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];
type Json<T> = T extends { content: { "application/json": infer Body } } ? Body : never;
type Body<P extends keyof paths> = paths[P] extends { post: { requestBody: infer R } } ? Json<R> : never;
type Answer<P extends keyof paths> = paths[P] extends { post: { responses: { 200: infer A } } }
  ? Json<A>
  : never;

declare const process: { argv: string[] };
const base = process.argv[2] ?? "http://127.0.0.1:8000";

async function post<P extends keyof paths>(path: P, body: Body<P>, name = ""): Promise<Answer<P>> {
  const answer = await fetch(base + path.replace("{name}", name), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${path}: status is ${answer.status}, expected 200`);
  return (await answer.json()) as Answer<P>;
}

const row: Schemas["numbers-vector"]["features"] = [5.1, 3.5, 1.4, 0.2];
const own = await post("/predict", { features: row });
const label: "a" | "b" | "c" | ("a" | "b" | "c")[] = own.prediction;
const scored = await post("/invocations", { instances: [row] });
const tensor: Schemas["Tensor"] = { name: "input", shape: [1, 4], datatype: "FP64", data: row };
const inferred = await post("/v2/models/{name}/infer", { inputs: [tensor] }, "numbers");

// @ts-expect-error  a row of three values is no row of this model
const short: Schemas["numbers-vector"]["features"] = [5.1, 3.5, 1.4];
// @ts-expect-error  this type of tensors does not exist
const unknown: Schemas["Tensor"] = { name: "input", shape: [1, 4], datatype: "FP65", data: row };

console.log(JSON.stringify([label, scored.predictions[0], inferred.outputs[0]?.data?.[0]]));
export { short, unknown };
