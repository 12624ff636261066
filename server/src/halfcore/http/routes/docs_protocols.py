"""The description of the prediction routes in other protocols, for the OpenAPI document."""

from typing import Any

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
                "properties": {"predict_method": {"enum": ["predict", "predict_proba"]}},
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
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
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
    "500": "the model failed; the log has the reason",
    "501": "Transfer-Encoding is not chunked",
    "503": "overloaded, or the model is not loaded; see Retry-After",
}


def paths() -> dict[str, Any]:
    """Path → its operations."""
    scoring = ("ScoringRequest", "ScoringAnswer", "ScoringError")
    inference = ("InferenceRequest", "InferenceAnswer", "InferenceError")
    older = ("ScoringRequest", "ScoringAnswer", "InferenceError")
    infer = "The inference protocol: predict, with JSON or binary tensors"
    described = {
        "/invocations": ("MLflow's protocol: predict with the default model", "invoke", scoring),
        "/endpoints/{name}/invocations": ("MLflow's protocol: predict", "invoke-model", scoring),
        "/v2/models/{name}/infer": (infer, "infer", inference),
        "/v2/models/{name}/versions/{version}/infer": (infer, "infer-version", inference),
        "/v1/models/{name}:predict": ("KServe's older protocol: predict", "predict-v1", older),
    }
    return {path: {"post": _operation(path, *what)} for path, what in described.items()}


def _operation(
    path: str, summary: str, operation_id: str, schemas: tuple[str, str, str]
) -> dict[str, Any]:
    request, answer, error = map(_content, schemas)
    refusals = _REFUSALS | {
        "415": "of another type, or compressed otherwise than with gzip or deflate"
    }
    return {
        "tags": ["protocols"],
        "summary": summary,
        "operationId": operation_id,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in ("name", "version")
            if f"{{{name}}}" in path
        ],
        "requestBody": {"required": True, "content": request},
        "responses": {
            "200": {"description": "the predictions", "content": answer},
            **{
                status: {"description": text, "content": error} for status, text in refusals.items()
            },
        },
    }


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
