"""A request's body becomes packed rows: the way that explains.

It runs when the fast way refused, so it may be slow but must be exact: strict UTF-8, strict JSON, no name twice, then every value of every
row against its column. It lists the first errors with their paths and counts the rest.
"""

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from halfcore.bundle import Input
from halfcore.errors import MOST_ERRORS, FieldError, Problem, listed, shown, unprocessable
from halfcore.schema import Schema

_WANTED = {"number": "a number", "integer": "an integer", "boolean": "true or false"}
_SCALAR = "a string, a number, true, false or null"
_TYPES = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class CarefulDecoder:
    """Decodes the bodies of one model version, or says all that is wrong with them."""

    def __init__(self, schema: Schema, *, max_rows: int) -> None:
        self._schema = schema
        self._max_rows = max_rows
        self._known = {*schema.names, *schema.ignored}

    def decode(self, body: bytes) -> tuple[list[bytes], bool]:
        """The packed rows, and whether a list of rows came.

        Raises:
            Problem: 400, 413 or 422; see `Decoder.decode`.
        """
        rows, many, path = self._rows(_parse(body))
        if len(rows) > self._max_rows:
            raise Problem(413, "too_many_rows", f"{len(rows)} rows came, at most {self._max_rows} are answered in one request")
        errors: list[FieldError] = []
        count = 0
        packed: list[bytes] = []
        for number, row in enumerate(rows):
            found = list(self._check(row, number if many else None, f"{path}[{number}]" if many else path))
            count += len(found)
            errors.extend(found[: MOST_ERRORS - len(errors)])
            if not count:
                packed.append(self._schema.pack(row if isinstance(row, list) else self._values(row)))
        if count:
            raise unprocessable(errors, count)
        return packed, many

    def _rows(self, body: Any) -> tuple[list[Any], bool, str]:
        """The rows of a parsed body, whether they came as a list, and the path where they stand."""
        if isinstance(body, list):
            return _not_empty(body, "$"), True, "$"
        if not isinstance(body, dict):
            _refuse("wrong_type", "$", f"the body is {_TYPES[type(body)]}, expected an object or an array of objects", body)
        if "features" not in body or "features" in self._known:
            return [body], False, "$"
        if len(body) > 1:
            extra = next(name for name in body if name != "features")
            _refuse(
                "unknown_column",
                f"$.{extra}",
                f'"{shown(extra)}" came beside "features", expected nothing beside it',
                shown(extra),
            )
        features = body["features"]
        if not isinstance(features, list):
            _refuse("wrong_type", "$.features", f'"features" is {_TYPES[type(features)]}, expected an array', features)
        if features and all(isinstance(row, list) for row in features):
            return features, True, "$.features"
        return [features], False, "$.features"

    def _values(self, row: dict[str, Any]) -> list[Any]:
        """A record's values in the columns' order, defaults where they are absent."""
        defaults = self._schema.defaults
        return [row[name] if name in row else defaults[i] for i, name in enumerate(self._schema.names)]

    def _check(self, row: Any, number: int | None, path: str) -> Iterator[FieldError]:
        """What is wrong with one row, given as an object or as an array."""
        where = "" if number is None else f"row {number}: "
        if isinstance(row, dict):
            yield from self._check_names(row, number, path)
            yield from self._check_ignored(row, number, path)
            pairs = [(column, row[column.name], f"{path}.{column.name}") for column in self._schema.inputs if column.name in row]
        elif isinstance(row, list):
            if len(row) != len(self._schema.inputs):
                message = f"{where}{len(row)} values came, expected {len(self._schema.inputs)}: {listed(list(self._schema.names))}"
                yield FieldError("wrong_length", path, message, number, got=len(row), expected=len(self._schema.inputs))
                return
            pairs = [(column, value, f"{path}[{i}]") for i, (column, value) in enumerate(zip(self._schema.inputs, row, strict=True))]
        else:
            yield FieldError(
                "wrong_type",
                path,
                f"{where}{_TYPES[type(row)]} came, expected an object",
                number,
                got=shown(row),
                expected="an object",
            )
            return
        for column, value, value_path in pairs:
            if problem := value_problem(column, value, self._schema):
                code, expected, message = problem
                yield FieldError(
                    code,
                    value_path,
                    f'{where}"{column.name}" is {_quoted(value)}, expected {message}',
                    number,
                    column.name,
                    shown(value),
                    expected,
                )

    def _check_ignored(self, row: dict[str, Any], number: int | None, path: str) -> Iterator[FieldError]:
        """An ignored column may hold any scalar."""
        for name in self._schema.ignored:
            if isinstance(value := row.get(name), list | dict):
                where = "" if number is None else f"row {number}: "
                message = f'{where}"{shown(name)}" is {_TYPES[type(value)]}, expected {_SCALAR}'
                yield FieldError("wrong_type", f"{path}.{shown(name)}", message, number, shown(name), shown(value), _SCALAR)

    def _check_names(self, row: dict[str, Any], number: int | None, path: str) -> Iterator[FieldError]:
        where = "" if number is None else f"row {number}: "
        names = listed(list(self._schema.names))
        for name in row:
            if name not in self._known:
                message = f'{where}"{shown(name)}" is not a column of this model, expected {names}'
                yield FieldError("unknown_column", f"{path}.{shown(name)}", message, number, shown(name), expected=list(self._schema.names))
        for i, name in enumerate(self._schema.names):
            if name not in row and i not in self._schema.defaults:
                yield FieldError(
                    "missing_column",
                    f"{path}.{name}",
                    f'{where}"{name}" is missing, expected {names}',
                    number,
                    name,
                    expected=list(self._schema.names),
                )


def _parse(body: bytes) -> Any:
    """The body as strict JSON: UTF-8, no NaN, no name twice, no number that does not fit a float."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Problem(400, "invalid_utf8", f"byte {error.start} of the body is not UTF-8") from None
    except RecursionError:
        raise Problem(400, "too_deep", "the body is nested too deeply, expected at most an array of objects") from None
    except json.JSONDecodeError as error:
        raise Problem(400, "invalid_json", f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:
        # int() refuses texts of more than 4,300 digits
        raise Problem(400, "invalid_json", "the body holds an integer of more than 4,300 digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Problem(400, "duplicate_key", f'"{shown(twice)}" stands twice in one object')
    return result


def _no_constant(name: str) -> NoReturn:
    raise Problem(400, "invalid_json", f"the body is not JSON: {name} is not a JSON number")


def _refuse(code: str, path: str, message: str, got: Any) -> NoReturn:
    raise unprocessable([FieldError(code, path, message, got=shown(got))], 1)


def _not_empty(rows: list[Any], path: str) -> list[Any]:
    if not rows:
        _refuse("no_rows", path, "an empty array came, expected at least one row", rows)
    return rows


def value_problem(column: Input, value: Any, schema: Schema) -> tuple[str, Any, str] | None:
    """What is wrong with a value of a column of the schema's `inputs`: code, expected value, and that in words; or None."""
    rule = schema.rule(column.name)
    bounds = rule.range_text()
    wanted = "one of " + listed(column.categories) if column.categories else _WANTED[column.kind] + (f" {bounds}" if bounds else "")
    expected = column.categories or column.kind
    if value is None:
        return None if column.nullable else ("null_not_allowed", expected, wanted)
    if column.categories:
        # 1, 1.0 and True are one key of a dict, but not one JSON value
        same_type = type(value) is type(column.categories[0])
        if not same_type:
            return "wrong_type", expected, wanted
        return None if value in column.categories else ("unknown_category", expected, wanted)
    if column.kind == "boolean":
        return None if isinstance(value, bool) else ("wrong_type", expected, wanted)
    right = isinstance(value, int) if column.kind == "integer" else isinstance(value, int | float)
    if isinstance(value, bool) or not right:
        return "wrong_type", expected, wanted
    if not schema.fits(value):
        return "out_of_range", bounds or f"at most {schema.largest:g}", wanted if bounds else _dtype_range(wanted, schema)
    # As the fast way compares: an integer of a number column as the float that it becomes.
    number = value if column.kind == "integer" else float(value)
    if (rule.minimum is not None and number < rule.minimum) or (rule.maximum is not None and number > rule.maximum):
        return "out_of_range", bounds, wanted
    return None


def _dtype_range(wanted: str, schema: Schema) -> str:
    return f"{wanted} between -{schema.largest:g} and {schema.largest:g} ({schema.dtype})"


def _quoted(value: Any) -> str:
    """A client's value as a person would write it, cut short."""
    text = shown(value)
    return json.dumps(text, ensure_ascii=False) if isinstance(value, str | bool) or value is None else str(text)
