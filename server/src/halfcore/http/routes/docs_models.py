"""The description of the prediction routes, for the OpenAPI document: what each served model takes
and gives."""

import re
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from halfcore.bundle import Input, Scalar
from halfcore.http.routes.docs_answers import RETRY, TIMEOUT, problem, reference
from halfcore.http.routes.models import example_body
from halfcore.models.served import LoadedModel
from halfcore.pipeline.schema import Rule

_SHOWN_CATEGORIES = 50
"""Of a column that accepts others as well."""
_JSON_TYPES = {"number": "number", "integer": "integer", "boolean": "boolean"}
_IGNORED = {
    "type": ["string", "number", "boolean", "null"],
    "description": "accepted and not read: no step of the model uses it",
}
_REFUSALS = {
    "400": (
        "not JSON, not UTF-8, nested too deeply, a name twice, or a broken compressed stream; or a "
        "wrong time limit"
    ),
    "404": "unknown model; the known ones are named",
    "408": "the body arrived too slowly",
    "413": "body too large, or too many rows",
    "415": "not application/json, or compressed otherwise than with gzip or deflate",
    "422": (
        "a value is wrong: the field, the value received and the value expected are named; or the "
        "model has no finite answer to it"
    ),
    "500": "the model failed; the log has the reason",
    "501": "Transfer-Encoding is not chunked",
    "503": "overloaded, or the model is not loaded; see Retry-After",
    "504": "the client's time passed before the answer",
}


def paths(models: Sequence[LoadedModel], default: str) -> dict[str, Any]:
    """Path → its operation, for each model, and for `/predict` if the default is among them."""
    described = {}
    for model in models:
        name = model.manifest.name
        if name == default:
            summary = f"Predict with the default model, {name}"
            described["/predict"] = {"post": _operation(model, summary, "predict")}
        operation = _operation(model, f"Predict with {name}", f"predict-{name}")
        described[f"/models/{name}/predict"] = {"post": operation}
    return described


def schemas(models: Sequence[LoadedModel]) -> dict[str, Any]:
    """The schemas that the models' operations refer to, by name."""
    return {name: schema for model in models for name, schema in _schemas(model).items()}


def _operation(model: LoadedModel, summary: str, operation_id: str) -> dict[str, Any]:
    example = example_body(model)
    examples = {
        "one": {"summary": "one row", "value": example},
        "several": {
            "summary": "several rows",
            "value": [example] * 2
            if model.manifest.named
            else {"features": [example["features"]] * 2},
        },
    }
    name = model.manifest.name
    answers = {
        "200": {
            "description": "the prediction",
            "content": {"application/json": {"schema": reference(f"{name}-answer")}},
        }
    }
    return {
        "tags": ["predict"],
        "summary": summary,
        "operationId": operation_id,
        "parameters": [TIMEOUT],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _body_schema(model), "examples": examples}},
        },
        "responses": answers
        | {
            status: {"description": text, "content": problem()} | RETRY.get(status, {})
            for status, text in _REFUSALS.items()
        },
    }


def _body_schema(model: LoadedModel) -> dict[str, Any]:
    """One row or several, by names or, if no column is called `features`, by position."""
    name = model.manifest.name
    forms = [
        reference(f"{name}-record"),
        {"type": "array", "title": "records", "items": reference(f"{name}-record"), "minItems": 1},
    ]
    if _by_position(model):
        forms += [reference(f"{name}-vector"), reference(f"{name}-vectors")]
    return {"oneOf": forms}


def _by_position(model: LoadedModel) -> bool:
    return all(column.name != "features" for column in model.schema.inputs)


def _schemas(model: LoadedModel) -> dict[str, Any]:
    """A model's schemas; without titles, which some client generators use as unique names."""
    name, inputs = model.manifest.name, model.schema.inputs
    values = [_value_schema(column, model.schema.rule(column.name)) for column in inputs]
    record = {
        "type": "object",
        "required": [
            column.name for i, column in enumerate(inputs) if i not in model.schema.defaults
        ],
        "properties": {column.name: value for column, value in zip(inputs, values, strict=True)}
        | dict.fromkeys(model.schema.ignored, _IGNORED),
        "additionalProperties": False,
    }
    found = {f"{name}-record": record, f"{name}-answer": _answer_schema(model)}
    if _by_position(model):
        # Bounded by its length: several client generators cannot read `items: false`.
        vector = {
            "type": "array",
            "prefixItems": values,
            "minItems": len(inputs),
            "maxItems": len(inputs),
        }
        found[f"{name}-vector"] = _features(vector)
        found[f"{name}-vectors"] = _features({"type": "array", "items": vector, "minItems": 1})
    return found


def _features(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["features"],
        "properties": {"features": schema},
        "additionalProperties": False,
    }


def _value_schema(column: Input, rule: Rule) -> dict[str, Any]:
    schema: dict[str, Any] = {"examples": [column.example]}
    if column.text is not None:
        schema |= {"type": "string", "maxLength": column.text.max_length}
    elif column.accepts_unknown and rule.categories is None:
        kind = "string" if isinstance((column.categories or [0])[0], str) else "integer"
        schema["type"] = [kind, "null"] if column.nullable else kind
        schema["examples"] = (column.categories or [])[:_SHOWN_CATEGORIES]
    elif column.categories:
        schema |= enumeration(column.categories, nullable=column.nullable)
    else:
        kind = _JSON_TYPES[column.kind]
        schema["type"] = [kind, "null"] if column.nullable else kind
    bounds = {"minimum": rule.minimum, "maximum": rule.maximum}
    schema |= {key: bound for key, bound in bounds.items() if bound is not None}
    return schema if rule.default is UNSET else schema | {"default": rule.default}


def enumeration(values: Sequence[Scalar], *, nullable: bool = False) -> dict[str, Any]:
    """The schema of one of these values, in a form that client generators take.

    They name each value of an enumeration after its text, and fail, or lose one, where two texts
    give one name: such values are named here. They know no enumerations of other types than texts
    and integers.
    """
    if len({type(value) for value in values}) > 1:
        return {"enum": [*values, None] if nullable else list(values)}
    kind = {str: "string", bool: "boolean", int: "integer"}.get(type(values[0]), "number")
    schema: dict[str, Any] = {"type": [kind, "null"] if nullable else kind}
    if kind in ("string", "integer"):
        schema["enum"] = [*values, None] if nullable else list(values)
    if kind == "string" and len({_letters(text) for text in values}) < len(values):
        schema["x-enum-varnames"] = [_variable(i, text) for i, text in enumerate(values)]
    return schema


def _letters(text: Scalar) -> str:
    return re.sub(r"[^0-9a-z]", "", str(text).lower())


def _variable(number: int, text: Scalar) -> str:
    """A name that no other value has: its number follows the last letter, and no name ends with a
    number otherwise."""
    letters = re.sub(r"[^A-Z]+", "_", str(text).upper()).strip("_")
    return f"{letters or 'VALUE'}_{number}"


def _answer_schema(model: LoadedModel) -> dict[str, Any]:
    manifest = model.manifest
    one = _prediction_schema(model)
    properties: dict[str, Any] = {"prediction": {"oneOf": [one, {"type": "array", "items": one}]}}
    if "probabilities" in manifest.outputs:
        by_class = _by_class([str(label) for label in manifest.classes])
        properties["probabilities"] = {"oneOf": [by_class, {"type": "array", "items": by_class}]}
    # Examples and not constants: a generated client must also work with later versions of the
    # model.
    properties |= {
        key: {"type": "string", "examples": [value]}
        for key, value in (("model", manifest.name), ("version", manifest.version))
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _by_class(labels: Sequence[str]) -> dict[str, Any]:
    """The probabilities of one row: an object whose names are data where client generators would
    give two of them one name."""
    number = {"type": "number"}
    if len({_letters(label) for label in labels}) < len(labels):
        return {"type": "object", "additionalProperties": number}
    return {"type": "object", "properties": dict.fromkeys(labels, number)}


def _prediction_schema(model: LoadedModel) -> dict[str, Any]:
    """Of one row."""
    manifest = model.manifest
    if manifest.classes:
        return enumeration(manifest.classes)
    number = {"type": "number"}
    several = isinstance(manifest.golden[0].prediction, list)
    return {"type": "array", "items": number} if several else number
