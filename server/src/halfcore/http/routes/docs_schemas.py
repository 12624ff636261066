"""The named schemas of what the ordinary routes answer, for the OpenAPI document."""

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
YES_NO: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
ANYTHING: Schema = {}
SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}
OBJECT: Schema = {"type": "object", "additionalProperties": True}


def reference(name: str) -> Schema:
    """A named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def listed(schema: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """An object whose names are data."""
    return {"type": "object", "additionalProperties": schema}


def one_of(*texts: str) -> Schema:
    """One of some words."""
    return {"type": "string", "enum": list(texts)}


def or_null(schema: Schema) -> Schema:
    """A value or null."""
    if "$ref" in schema:
        return {"oneOf": [{"type": "null"}, schema]}
    return schema | {"type": [schema["type"], "null"]}


def record(**properties: Schema) -> Schema:
    """An object with all of these properties."""
    return {"type": "object", "required": list(properties), "properties": properties}


def with_optional(schema: Schema, **properties: Schema) -> Schema:
    """The same object with properties that can be absent."""
    return schema | {"properties": schema["properties"] | properties}


_TASK = one_of("classification", "regression")
_SUMMARY = {"name": TEXT, "version": TEXT, "task": _TASK, "loaded_at": TIME}
_FOLLOWING = {
    "uri": TEXT,
    "workspace": or_null(TEXT),
    "served": or_null(reference("ServedVersion")),
    "pending": or_null(reference("PendingVersion")),
    "refused": or_null(reference("RefusedVersion")),
    "schema_change": or_null(reference("SchemaChange")),
    "error": or_null(TEXT),
    "last_success_age_s": or_null(NUMBER),
}
_RESULT = one_of("unchanged", "swapped", "pending", "refused", "failed")

SCHEMAS: dict[str, Schema] = {
    "Problem": with_optional(
        record(
            type=TEXT,
            title=TEXT,
            status=WHOLE,
            code=TEXT | {"examples": ["unknown_category"]},
            detail=TEXT,
        ),
        errors=listed(reference("FieldError")),
        error_count=WHOLE,
        more_errors=YES_NO,
    ),
    "FieldError": with_optional(
        record(code=TEXT, path=TEXT | {"examples": ["$[3].island"]}, message=TEXT),
        row=WHOLE,
        field=TEXT,
        got=ANYTHING,
        expected=ANYTHING,
    ),
    "Health": record(
        status=one_of("ok", "degraded", "not_ready", "draining"),
        api=TEXT,
        version=TEXT,
        default_model=or_null(TEXT),
        reasons=listed(TEXT),
        models=by_name(reference("ModelState")),
    ),
    "ModelState": with_optional(
        record(state=one_of("loaded", "refused", "not_loaded")),
        version=TEXT,
        loaded_at=TIME,
        newer=TEXT,
        reason=TEXT,
        following=by_name(reference("Following")),
    ),
    "Following": record(**_FOLLOWING),
    "Reloaded": record(result=_RESULT, **_FOLLOWING),
    "ServedVersion": record(version=TEXT, manifest_sha256=TEXT, since=TIME),
    "PendingVersion": record(version=TEXT, code=TEXT, reason=TEXT, attempts=WHOLE),
    "RefusedVersion": record(version=TEXT, code=TEXT, reason=TEXT, at=TIME),
    "SchemaChange": record(
        from_version=TEXT,
        compatible=YES_NO,
        added=listed(TEXT),
        removed=listed(TEXT),
        changed=listed(TEXT),
    ),
    "Alive": record(status=one_of("alive")),
    "Readiness": record(status=one_of("ready", "not_ready")),
    "Models": record(default_model=or_null(TEXT), models=listed(reference("ModelSummary"))),
    "ModelSummary": record(**_SUMMARY),
    "ModelDetails": with_optional(
        record(
            **_SUMMARY,
            inputs=listed(reference("ModelColumn")),
            ignored=listed(record(name=TEXT, type=TEXT)),
            catalogue=or_null(reference("ModelCatalogue")),
            outputs=reference("ModelOutputs"),
            example=OBJECT,
            parity=OBJECT,
            source=OBJECT,
            onnx=OBJECT,
            tools=by_name(TEXT),
            created_at=TEXT,
        ),
        following=by_name(reference("Following")),
        challenger=reference("ModelChallenger"),
    ),
    "ModelColumn": with_optional(
        record(
            name=TEXT,
            kind=one_of("number", "integer", "boolean", "category", "text"),
            nullable=YES_NO,
            example=SCALAR,
            source=one_of("bundle", "catalogue"),
        ),
        categories=listed({"type": ["string", "integer"]}),
        minimum=NUMBER,
        maximum=NUMBER,
        domain=listed(NUMBER),
        accepts_unknown=YES_NO,
        text=record(max_length=WHOLE),
        allowed=record(minimum=or_null(NUMBER), maximum=or_null(NUMBER)),
        default=SCALAR,
    ),
    "ModelCatalogue": record(
        connected=YES_NO,
        read_at=or_null(TIME),
        age_s=or_null(NUMBER),
        from_disk=YES_NO,
        refused=or_null(TEXT),
    ),
    "ModelOutputs": record(
        prediction={"oneOf": [TEXT, listed(ANYTHING)]},
        probabilities=YES_NO,
    ),
    "ModelChallenger": record(
        mode=TEXT,
        share=or_null(NUMBER),
        source=TEXT,
        version=or_null(TEXT),
        loaded_at=or_null(TIME),
        refused=or_null(TEXT),
    ),
    "ServerMetadata": record(name=TEXT, version=TEXT, extensions=listed(TEXT)),
    "ServerLive": record(live=YES_NO),
    "ServerReady": record(ready=YES_NO),
    "ModelNames": record(models=listed(TEXT)),
    "RepositoryRequest": {"type": "object", "properties": {"ready": YES_NO}},
    "RepositoryModel": with_optional(
        record(name=TEXT, version=TEXT, state=one_of("READY", "UNAVAILABLE")),
        reason=TEXT,
    ),
    "ModelMetadata": record(
        name=TEXT,
        versions=listed(TEXT),
        platform=TEXT,
        inputs=listed(reference("TensorMetadata")),
        outputs=listed(reference("TensorMetadata")),
    ),
    "TensorMetadata": record(name=TEXT, datatype=TEXT, shape=listed(WHOLE)),
    "ModelReady": record(name=TEXT, ready=YES_NO),
}
