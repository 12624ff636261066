"""The description of the prediction routes in other protocols, for the OpenAPI document."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from halfcore.http.routes.docs_answers import RETRY, TIMEOUT, named, with_example
from halfcore.models.served import LoadedModel
from halfcore.predict.admission import BINARY_HEADER
from halfcore.predict.protocols.binary import BINARY_TYPE
from halfcore.predict.protocols.inference import ONE_TENSOR, describe
from halfcore.predict.protocols.mlflow import CSV_TYPE
from halfcore.predict.protocols.tensors import DTYPES

_TENSOR = {"$ref": "#/components/schemas/Tensor"}
_PARAMETERS = {"type": "object", "additionalProperties": True}
_ROWS = {"type": "array", "items": {"type": "array", "items": {}}}
_RECORDS = {"type": "array", "items": {"type": "object", "additionalProperties": True}}

SCHEMAS: dict[str, Any] = {
    "ScoringRequest": {
        "type": "object",
        "description": "exactly one of the four forms, and params",
        "properties": {
            "dataframe_split": {
                "type": "object",
                "required": ["data"],
                "properties": {
                    "columns": {"type": "array", "items": {"type": "string"}},
                    "index": {"type": "array", "items": {}},
                    "data": _ROWS,
                },
            },
            "dataframe_records": _RECORDS,
            "instances": {"type": "array", "items": {}, "minItems": 1},
            "inputs": {},
            "params": {
                "type": "object",
                "properties": {
                    "predict_method": {"type": "string", "enum": ["predict", "predict_proba"]}
                },
            },
        },
    },
    "ScoringAnswer": {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array", "items": {}}},
    },
    "ScoringError": {
        "type": "object",
        "required": ["error_code", "message"],
        "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
    },
    "Tensor": {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string", "enum": ["BYTES", *DTYPES]},
            "parameters": _PARAMETERS,
            "data": {"type": "array", "items": {}},
        },
    },
    "InferenceRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": _PARAMETERS,
            "inputs": {"type": "array", "items": _TENSOR},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
                },
            },
        },
    },
    "InferenceAnswer": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _TENSOR},
        },
    },
    "InferenceError": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
}
_REFUSALS = {
    "400": "the body is not in the protocol, or a value is wrong",
    "404": "unknown model or version",
    "408": "the body arrived too slowly",
    "413": "body too large, or too many rows",
    "415": "of another type, or compressed otherwise than with gzip or deflate",
    "500": "the model failed; the log has the reason",
    "501": "Transfer-Encoding is not chunked",
    "503": "overloaded, or the model is not loaded; see Retry-After",
    "504": "the client's time passed before the answer",
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_LENGTH = {
    "description": "length of the JSON, if binary tensors follow it",
    "schema": {"type": "integer", "minimum": 0},
}
_LENGTH_HEADER = BINARY_HEADER.title()


def paths(
    default: LoadedModel | None, shown: LoadedModel | None, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """Path → its operations.

    Args:
        default: the model of `/invocations`, for its examples.
        shown: the model of the other examples.
        parameters: path parameter → a value that works, of the same model.
    """
    scoring, older = _scoring(shown), _older(shown)
    invoke = _operation("MLflow's protocol: predict with the default model", "invoke")
    invoke_model = _operation("MLflow's protocol: predict", "invoke-model", "name")
    infer = _operation("The inference protocol: predict", "infer", "name")
    versioned = _operation("The same, with a version", "infer-version", "name", "version")
    predict = _operation("KServe's older protocol: predict", "predict-v1", "name")
    described = {
        "/invocations": invoke | _scoring(default),
        "/endpoints/{name}/invocations": invoke_model | scoring,
        "/v2/models/{name}/infer": infer | _inference(shown),
        "/v2/models/{name}/versions/{version}/infer": versioned | _inference(shown),
        "/v1/models/{name}:predict": predict | older,
    }
    return {
        path: {"post": _finished(operation, parameters)} for path, operation in described.items()
    }


def _operation(summary: str, operation_id: str, *parameters: str) -> dict[str, Any]:
    return {
        "tags": ["protocols"],
        "summary": summary,
        "operationId": operation_id,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in parameters
        ],
    }


def _finished(operation: dict[str, Any], examples: Mapping[str, str]) -> dict[str, Any]:
    """With examples of its path's parameters, and those that are in no path."""
    more = operation.pop("more_parameters", [])
    parameters = [with_example(parameter, examples) for parameter in operation["parameters"]]
    return operation | {"parameters": [*parameters, *more, TIMEOUT]}


def _scoring(model: LoadedModel | None) -> dict[str, Any]:
    """What MLflow's protocol takes and answers."""
    refusals = _refusals("ScoringError")
    refusals["415"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    text: dict[str, Any] = {"schema": {"type": "string"}}
    if model is not None:
        text["examples"] = {"one": {"summary": "one row", "value": _as_csv(model)}}
    content = _with_examples(named("ScoringRequest"), _tables(model)) | {CSV_TYPE: text}
    answer = _predictions("ScoringAnswer")
    answer["content"] |= {CSV_TYPE: {"schema": {"type": "string"}}}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {"200": answer} | refusals,
    }


def _older(model: LoadedModel | None) -> dict[str, Any]:
    """What KServe's older protocol takes and answers."""
    tables = {name: table for name, table in _tables(model).items() if "instances" in table}
    return {
        "requestBody": {
            "required": True,
            "content": _with_examples(named("ScoringRequest"), tables),
        },
        "responses": {"200": _predictions("ScoringAnswer")} | _refusals("InferenceError"),
    }


def _inference(model: LoadedModel | None) -> dict[str, Any]:
    """What the inference protocol takes and answers."""
    examples = {} if model is None else {"one": {"inputs": _tensors(model)}}
    content = _with_examples(named("InferenceRequest"), examples) | {BINARY_TYPE: _BYTES}
    answer = _predictions("InferenceAnswer")
    answer["content"] |= {BINARY_TYPE: _BYTES}
    answer["headers"] = {_LENGTH_HEADER: _LENGTH}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {"200": answer} | _refusals("InferenceError"),
        "more_parameters": [{"name": _LENGTH_HEADER, "in": "header", "required": False} | _LENGTH],
    }


def _predictions(schema: str) -> dict[str, Any]:
    return {"description": "the predictions", "content": named(schema)}


def _refusals(schema: str) -> dict[str, dict[str, Any]]:
    return {
        status: {"description": text, "content": named(schema)} | RETRY.get(status, {})
        for status, text in _REFUSALS.items()
    }


def _with_examples(content: dict[str, Any], examples: Mapping[str, Any]) -> dict[str, Any]:
    """The only member of a content, with examples by their names."""
    ((kind, described),) = content.items()
    if not examples:
        return content
    shown = {name: {"summary": name, "value": value} for name, value in examples.items()}
    return {kind: described | {"examples": shown}}


def _tables(model: LoadedModel | None) -> dict[str, Any]:
    """One row in MLflow's forms: by names if the columns have some."""
    if model is None:
        return {}
    names, row = _row(model)
    if not model.manifest.named:
        return {"instances": {"instances": [row]}, "inputs": {"inputs": [row]}}
    record = dict(zip(names, row, strict=True))
    return {
        "records": {"dataframe_records": [record]},
        "split": {"dataframe_split": {"columns": names, "data": [row]}},
        "instances": {"instances": [record]},
    }


def _as_csv(model: LoadedModel) -> str:
    text = io.StringIO()
    names, row = _row(model)
    csv.writer(text, lineterminator="\n").writerows([names, row])
    return text.getvalue()


def _row(model: LoadedModel) -> tuple[list[str], list[Any]]:
    inputs = model.schema.inputs
    return [column.name for column in inputs], [column.example for column in inputs]


def _tensors(model: LoadedModel) -> list[dict[str, Any]]:
    """One row as tensors."""
    _, row = _row(model)
    inputs = describe(model)["inputs"]
    if not model.manifest.named:
        return [{**inputs[0], "name": ONE_TENSOR, "shape": [1, len(row)], "data": row}]
    return [
        {**tensor, "shape": [1], "data": [value]} for tensor, value in zip(inputs, row, strict=True)
    ]
