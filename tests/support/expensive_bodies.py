"""Request bodies that try to be expensive: each kind is a function of the columns, a length in
bytes and a random source."""

import json
import random
from collections.abc import Callable
from typing import Any

Columns = list[dict[str, Any]]
"""A manifest's inputs."""
Kind = Callable[[Columns, int, random.Random], bytes]


def random_source(seed: str | int) -> random.Random:
    """The same numbers for the same seed."""
    return random.Random(seed)  # noqa: S311  for tests


def right_value(column: dict[str, Any], rng: random.Random) -> Any:
    """A value that the column accepts."""
    if column.get("categories"):
        return rng.choice(column["categories"])
    number = rng.randrange(90)
    return {"number": number / 10, "integer": number, "boolean": number % 2 == 0}[column["kind"]]


def right_record(columns: Columns, rng: random.Random) -> str:
    """A record that the model accepts."""
    return json.dumps(
        {column["name"]: right_value(column, rng) for column in columns}, ensure_ascii=False
    )


def right_vector(columns: Columns, rng: random.Random) -> str:
    """A vector that the model accepts."""
    return json.dumps(
        [right_value(column, rng) for column in columns], ensure_ascii=False, separators=(",", ":")
    )


def _filled(piece: str, length: int, opening: str = "[", closing: str = "]") -> bytes:
    """As many copies of a piece, with commas, as fit the length."""
    count = max(1, (length - len(opening) - len(closing)) // (len(piece.encode()) + 1))
    return (opening + ",".join([piece] * count) + closing).encode()


def _most(length: int, piece: str, most_rows: int = 10_000) -> int:
    return max(1, min(most_rows, length // (len(piece.encode()) + 1)))


def right_records(columns: Columns, length: int, rng: random.Random) -> bytes:
    """Records that are right, up to 10,000."""
    row = right_record(columns, rng)
    return ("[" + ",".join([row] * _most(length, row)) + "]").encode()


def right_vectors(columns: Columns, length: int, rng: random.Random) -> bytes:
    """Vectors that are right, up to 10,000."""
    row = right_vector(columns, rng)
    return ('{"features":[' + ",".join([row] * _most(length, row)) + "]}").encode()


def _rows_with(change: Callable[[dict[str, Any], random.Random], str]) -> Kind:
    """Records of which each is changed."""

    def made(columns: Columns, length: int, rng: random.Random) -> bytes:
        row = change({column["name"]: right_value(column, rng) for column in columns}, rng)
        return ("[" + ",".join([row] * _most(length, row)) + "]").encode()

    return made


def _half_wrong(row: dict[str, Any], rng: random.Random) -> str:
    return json.dumps({name: value if i % 2 else [] for i, (name, value) in enumerate(row.items())})


def _all_wrong(row: dict[str, Any], rng: random.Random) -> str:
    return json.dumps(dict.fromkeys(row, "wrong"))


def _all_null(row: dict[str, Any], rng: random.Random) -> str:
    return json.dumps(dict.fromkeys(row))


def _unknown_names(row: dict[str, Any], rng: random.Random) -> str:
    return json.dumps(
        row | {f"c{i}": 1 for i in range(rng.choice([1, 10, 100]))}, separators=(",", ":")
    )


def _twice(row: dict[str, Any], rng: random.Random) -> str:
    return json.dumps(row)[:-1] + "," + json.dumps(row)[1:]


def _escaped(row: dict[str, Any], rng: random.Random) -> str:
    def text(value: Any) -> str:
        if isinstance(value, str):
            return '"' + "".join(f"\\u{ord(c):04x}" for c in value) + '"'
        return json.dumps(value)

    return "{" + ",".join(text(name) + ":" + text(value) for name, value in row.items()) + "}"


def _last_row(ending: Callable[[str], str]) -> Kind:
    """Right records, and a last one that is not."""

    def made(columns: Columns, length: int, rng: random.Random) -> bytes:
        row = right_record(columns, rng)
        return ("[" + ",".join([row] * (_most(length, row) - 1) + [ending(row)]) + "]").encode()

    return made


def _last_vector(columns: Columns, length: int, rng: random.Random) -> bytes:
    row = right_vector(columns, rng)
    return ('{"features":[' + ",".join([row] * (_most(length, row) - 1) + ["[]"]) + "]}").encode()


def _tiny_vectors(columns: Columns, length: int, rng: random.Random) -> bytes:
    """Vectors of single digits: the most values in the fewest bytes."""
    row = "[" + ",".join(["1"] * len(columns)) + "]"
    return _filled(row, length, '{"features":[', "]}")


def _tiny_vectors_last_wrong(columns: Columns, length: int, rng: random.Random) -> bytes:
    row = "[" + ",".join(["1"] * len(columns)) + "]"
    return ('{"features":[' + ",".join([row] * (_most(length, row) - 1) + ['"x"']) + "]}").encode()


def _tiny_vectors_wrong(columns: Columns, length: int, rng: random.Random) -> bytes:
    row = "[" + ",".join(["1"] * (len(columns) - 1) + ["[]"]) + "]"
    return ('{"features":[' + ",".join([row] * _most(length, row)) + "]}").encode()


def _unknown_only(columns: Columns, length: int, rng: random.Random) -> bytes:
    """One record of as many unknown names as fit."""
    parts, size, i = [], 2, 0
    while size < length:
        part = f'"{i:x}":1'
        parts.append(part)
        size += len(part) + 1
        i += 1
    return ("{" + ",".join(parts) + "}").encode()


def _rows_of_unknown(columns: Columns, length: int, rng: random.Random) -> bytes:
    row = "{" + ",".join(f'"{i:x}":1' for i in range(rng.choice([20, 400, 6000]))) + "}"
    return ("[" + ",".join([row] * _most(length, row)) + "]").encode()


def _same_name(columns: Columns, length: int, rng: random.Random) -> bytes:
    return _filled(f'"{columns[0]["name"]}":1', length, "{", "}")


def _same_unknown_name(columns: Columns, length: int, rng: random.Random) -> bytes:
    return _filled('"a":1', length, "{", "}")


def _deep(columns: Columns, length: int, rng: random.Random) -> bytes:
    return b"[" * length


def _deep_as_allowed(columns: Columns, length: int, rng: random.Random) -> bytes:
    depth = rng.choice([3, 30, 300, 900])
    return _filled("[" * depth + "]" * depth, length)


def _deep_in_value(columns: Columns, length: int, rng: random.Random) -> bytes:
    depth = rng.choice([1, 2, 30, 300])
    return _filled("[" * depth + "]" * depth, length, f'{{"{columns[0]["name"]}":[', "]}")


def _objects_in_value(columns: Columns, length: int, rng: random.Random) -> bytes:
    return _filled('{"a":1}', length, f'{{"{columns[0]["name"]}":[', "]}")


def _long_text(columns: Columns, length: int, rng: random.Random) -> bytes:
    unit = rng.choice(["x", "é", "😀", "\\u0041", '\\"', "\\\\", "[", "{", ",", "\\ud83d\\ude00"])
    return (f'{{"{columns[0]["name"]}":"' + unit * (length // len(unit.encode())) + '"}').encode()


def _long_name(columns: Columns, length: int, rng: random.Random) -> bytes:
    unit = rng.choice(["x", "é", "😀", "\\u0041", '\\"', "{"])
    return ('{"' + unit * (length // len(unit.encode())) + '":1}').encode()


def _text_without_end(columns: Columns, length: int, rng: random.Random) -> bytes:
    return ('[{"a":"' + rng.choice(["x", '\\"', "😀"]) * (length // 2)).encode()[:length]


def _texts_as_rows(columns: Columns, length: int, rng: random.Random) -> bytes:
    return _filled(rng.choice(['""', '"[{"', '"\\u0041\\u0042"']), length)


def _numbers_as_rows(columns: Columns, length: int, rng: random.Random) -> bytes:
    return _filled(rng.choice(["1", "1e1", "null"]), length)


def _empty_rows(columns: Columns, length: int, rng: random.Random) -> bytes:
    return _filled(rng.choice(["{}", "[]", "[{}]", "[[]]"]), length)


def _one_vector(columns: Columns, length: int, rng: random.Random) -> bytes:
    return _filled(rng.choice(["1", "[]", '""', "{}"]), length, '{"features":[', "]}")


def _digits(columns: Columns, length: int, rng: random.Random) -> bytes:
    number = rng.choice(["1" * 4000, "0." + "1" * length, "1" * length, "1e" + "1" * length, "1e5"])
    return _filled(number, max(length, len(number) + 20), '{"features":[', "]}")[: length + 40]


def _space(columns: Columns, length: int, rng: random.Random) -> bytes:
    row = right_record(columns, rng)
    return rng.choice(
        [
            b" " * length + row.encode(),
            (row + " " * length + "x").encode(),
            b"[" + b" \n" * (length // 2) + b"]",
        ]
    )


def _commas(columns: Columns, length: int, rng: random.Random) -> bytes:
    return rng.choice([b"[", b'{"features":[', b"", b"{"]) + b"," * length


def _quotes(columns: Columns, length: int, rng: random.Random) -> bytes:
    return rng.choice([b"[", b'{"features":[', b"", b"{"]) + b'"' * length


def _noise(columns: Columns, length: int, rng: random.Random) -> bytes:
    alphabet = b'{}[]",:\\u0012e-.features ntrl\xff'
    return bytes(rng.choices(alphabet, k=min(length, 20_000)))


def _damaged(columns: Columns, length: int, rng: random.Random) -> bytes:
    """A right body with one byte changed, lost or added."""
    body = bytearray(rng.choice([right_records, right_vectors])(columns, length, rng))
    at = int(rng.random() * len(body))
    body[at : at + rng.randrange(2)] = bytes([rng.choice(b'{}[]",:\\0e-. \xff')])
    return bytes(body)


KINDS: dict[str, Kind] = {
    "right records": right_records,
    "right vectors": right_vectors,
    "half-wrong records": _rows_with(_half_wrong),
    "wrong records": _rows_with(_all_wrong),
    "records of nulls": _rows_with(_all_null),
    "unknown names in each record": _rows_with(_unknown_names),
    "each name twice": _rows_with(_twice),
    "escaped records": _rows_with(_escaped),
    "the last record lacks its end": _last_row(lambda row: row[:-1]),
    "the last record is empty": _last_row(lambda _: "{}"),
    "the last record has an escape": _last_row(lambda row: row.replace('"', '"\\u0061', 1)),
    "the last vector is empty": _last_vector,
    "vectors of single digits": _tiny_vectors,
    "vectors of single digits, the last a text": _tiny_vectors_last_wrong,
    "vectors of single digits and an array": _tiny_vectors_wrong,
    "one record of unknown names": _unknown_only,
    "records of unknown names": _rows_of_unknown,
    "one name again and again": _same_name,
    "an unknown name again and again": _same_unknown_name,
    "opening brackets": _deep,
    "arrays as deep as allowed": _deep_as_allowed,
    "arrays in a value": _deep_in_value,
    "objects in a value": _objects_in_value,
    "a long text": _long_text,
    "a long name": _long_name,
    "a text without an end": _text_without_end,
    "texts as rows": _texts_as_rows,
    "numbers as rows": _numbers_as_rows,
    "empty rows": _empty_rows,
    "one vector of many values": _one_vector,
    "numbers of many digits": _digits,
    "white space": _space,
    "commas": _commas,
    "quotes": _quotes,
    "noise": _noise,
    "a damaged body": _damaged,
}
