"""Requests in the protocols of other model servers, asked through plain ASGI."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from support.bundles import MIXED, write_bundle
from support.client import app_client, samples

ROW = [5.1, 3.5, 1.4, 0.2]
NAMES = ["x0", "x1", "x2", "x3"]
RECORD = dict(zip(NAMES, ROW, strict=True))
MIXED_ROW: dict[str, Any] = {
    "island": "Dream",
    "mass": None,
    "count": 3,
    "sex": None,
    "zone": 20,
    "wet": False,
}
INFER = "/v2/models/numbers/infer"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Serves `numbers` (the default), `mixed` and the regressor `sum`."""
    write_bundle(tmp_path)
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    write_bundle(tmp_path, "sum", task="regression", dtype="float64")
    async with app_client(tmp_path, default_model="numbers", max_rows=100) as client:
        yield client


async def predicted(client: httpx.AsyncClient, record: dict[str, Any], model: str) -> Any:
    """The answer of the simplest route."""
    return (await client.post(f"/models/{model}/predict", json=record)).json()


# -- MLflow ----------------------------------------------------------------------------------------

FORMS: dict[str, Any] = {
    "split": {"dataframe_split": {"columns": NAMES, "data": [ROW, ROW]}},
    "split with an index": {
        "dataframe_split": {"columns": NAMES, "index": [7, 8], "data": [ROW] * 2}
    },
    "split in another order": {
        "dataframe_split": {"columns": NAMES[::-1], "data": [ROW[::-1]] * 2}
    },
    "split with another column": {
        "dataframe_split": {"columns": ["id", *NAMES], "data": [["a", *ROW]] * 2}
    },
    "split without columns": {"dataframe_split": {"data": [ROW, ROW]}},
    "records": {"dataframe_records": [RECORD, RECORD]},
    "records with another key": {"dataframe_records": [RECORD | {"id": 1}] * 2},
    "instances as lists": {"instances": [ROW, ROW]},
    "instances as records": {"instances": [RECORD, RECORD]},
    "inputs as lists": {"inputs": [ROW, ROW]},
    "inputs as columns": {"inputs": {name: [value] * 2 for name, value in RECORD.items()}},
    "inputs as column tensors": {
        "inputs": {name: [[value], [value]] for name, value in RECORD.items()}
    },
    "texts that are numbers": {"dataframe_records": [{n: str(v) for n, v in RECORD.items()}] * 2},
    "params of another model": {"dataframe_records": [RECORD] * 2, "params": {"top_k": 3}},
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_mlflow_gets_the_same_labels(
    client: httpx.AsyncClient, form: str
) -> None:
    """The answer is a list of labels in the order of the rows."""
    expected = (await predicted(client, RECORD, "numbers"))["prediction"]

    answer = await client.post("/invocations", json=FORMS[form])

    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"predictions": [expected, expected]}


async def test_an_endpoint_names_the_model(client: httpx.AsyncClient) -> None:
    """The path that `mlflow.deployments` posts to."""
    answer = await client.post("/endpoints/sum/invocations", json={"dataframe_records": [RECORD]})
    assert answer.json() == {"predictions": [pytest.approx(10.2)]}
    unknown = await client.post("/endpoints/none/invocations", json={"instances": [ROW]})
    assert (unknown.status_code, unknown.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


async def test_one_scalar_per_column_is_one_row(client: httpx.AsyncClient) -> None:
    """`inputs` may hold a row's values without lists."""
    answer = await client.post("/invocations", json={"inputs": RECORD})
    assert len(answer.json()["predictions"]) == 1


async def test_probabilities_on_request(client: httpx.AsyncClient) -> None:
    """`params` chooses the method, as for a logged scikit-learn model."""
    expected = await predicted(client, RECORD, "numbers")
    body = {"instances": [ROW], "params": {"predict_method": "predict_proba"}}

    answer = await client.post("/invocations", json=body)

    assert answer.json() == {"predictions": [list(expected["probabilities"].values())]}
    wrong = await client.post(
        "/invocations", json={"instances": [ROW], "params": {"predict_method": "score"}}
    )
    assert (wrong.status_code, wrong.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


CSV = {
    "plain": "x0,x1,x2,x3\n5.1,3.5,1.4,0.2\n",
    "another order": "x3,x2,x1,x0\n0.2,1.4,3.5,5.1\n",
    "an index, as to_csv writes it": ",x0,x1,x2,x3\n0,5.1,3.5,1.4,0.2\n",
    "quotes and carriage returns": '"x0","x1","x2","x3"\r\n"5.1","3.5","1.4","0.2"\r\n',
    "carriage returns alone, as old spreadsheets write them": "x0,x1,x2,x3\r5.1,3.5,1.4,0.2\r",
    "another column": "x0,x1,x2,x3,note\n5.1,3.5,1.4,0.2,hello\n",
    "ends of lines in a cell": 'x0,x1,x2,x3,note\r5.1,3.5,1.4,0.2,"a\rb\nc\r\n"\r',
    "a byte order mark": "\ufeffx0,x1,x2,x3\n5.1,3.5,1.4,0.2\n",
}


@pytest.mark.parametrize("name", CSV)
@pytest.mark.parametrize("kind", ["text/csv", "text/csv; charset=utf-8"])
async def test_csv(client: httpx.AsyncClient, name: str, kind: str) -> None:
    """A table with a header."""
    expected = (await predicted(client, RECORD, "numbers"))["prediction"]
    answer = await client.post("/invocations", content=CSV[name], headers={"content-type": kind})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [expected]})


ACCEPTED: dict[str, bool] = {
    "text/csv": True,
    "Text/CSV; charset=utf-8": True,
    "text/csv, */*;q=0.1": True,
    "application/json;q=0.5, text/csv": True,
    "text/csv, application/json": True,
    "application/json, text/csv": False,
    "text/csv;q=0": False,
    "text/csv;q=x, application/json;q=0.1": False,
    "text/html": False,
    "*/*": False,
}


@pytest.mark.parametrize("accept", ACCEPTED)
async def test_csv_for_those_who_prefer_it(client: httpx.AsyncClient, accept: str) -> None:
    """One line per row and no header, as SageMaker's containers answer; all others get JSON."""
    expected = (await predicted(client, RECORD, "numbers"))["prediction"]
    answer = await client.post(
        "/invocations", json={"instances": [ROW, ROW]}, headers={"accept": accept}
    )
    kind = answer.headers["content-type"].partition(";")[0]
    assert (answer.status_code, kind == "text/csv") == (200, ACCEPTED[accept])
    assert (answer.text == f"{expected}\n{expected}\n") == ACCEPTED[accept]


async def test_a_column_of_csv_that_is_there_twice_is_refused(client: httpx.AsyncClient) -> None:
    """Unless the model does not have it."""
    kind = {"content-type": "text/csv"}
    for more, status in (("y,y", 200), ("y,x1", 400)):
        body = f"x0,x1,x2,x3,{more}\n1,2,3,4,5,6\n"
        answer = await client.post("/invocations", content=body, headers=kind)
        assert answer.status_code == status
    assert "the column 'x1' is named 2 times" in answer.json()["message"]


async def test_values_and_probabilities_as_csv(client: httpx.AsyncClient) -> None:
    """A value, and a line of probabilities in the order of the classes; errors stay JSON."""
    accept = {"accept": "text/csv"}
    sums = await client.post(
        "/endpoints/sum/invocations", json={"instances": [ROW, [1, 2, 3, 4]]}, headers=accept
    )
    assert list(map(float, sums.text.split())) == [pytest.approx(10.2), 10.0]
    body = {"instances": [ROW], "params": {"predict_method": "predict_proba"}}
    as_json = (await client.post("/invocations", json=body)).json()["predictions"]
    as_csv = (await client.post("/invocations", json=body, headers=accept)).text
    assert [[float(cell) for cell in line.split(",")] for line in as_csv.split()] == as_json
    wrong = await client.post("/invocations", json={"instances": [["a"]]}, headers=accept)
    assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/json")
    older = await client.post(
        "/v1/models/numbers:predict", json={"instances": [ROW]}, headers=accept
    )
    assert older.headers["content-type"] == "application/json"


async def test_csv_with_texts_and_missing_cells(client: httpx.AsyncClient) -> None:
    """An empty cell is null, and True and False are booleans."""
    expected = (await predicted(client, MIXED_ROW, "mixed"))["prediction"]
    text = "island,mass,count,sex,zone,wet\nDream,,3,,20,False\nDream,NaN,3.0,,20,false\n"
    answer = await client.post(
        "/endpoints/mixed/invocations", content=text, headers={"content-type": "text/csv"}
    )
    assert answer.json() == {"predictions": [expected, expected]}


async def test_mlflow_converts_values(client: httpx.AsyncClient) -> None:
    """As MLflow does: 3.9 becomes the integer 3, a number becomes a boolean, NaN is null."""
    expected = (await predicted(client, MIXED_ROW, "mixed"))["prediction"]
    row = MIXED_ROW | {"count": 3.9, "zone": 20.0, "wet": 0, "mass": float("nan")}
    body = json.dumps({"dataframe_records": [row]})  # with a bare NaN

    answer = await client.post(
        "/endpoints/mixed/invocations", content=body, headers={"content-type": "application/json"}
    )

    assert answer.json() == {"predictions": [expected]}


MLFLOW_REFUSED: dict[str, tuple[str, str, str]] = {
    "not JSON": ("{", "BAD_REQUEST", "valid JSON"),
    "a broken number": ('{"inputs":[[1,2,3,4.]]}', "BAD_REQUEST", "line 1 column 20 (char 19)"),
    "many digits": ('{"inputs":[[1,2,3,%s]]}' % ("9" * 5000), "BAD_REQUEST", "4,300 digits"),
    "not UTF-8": ('{"inputs":[["\xe9"]]}', "BAD_REQUEST", "not UTF-8"),
    "a list": ("[]", "BAD_REQUEST", "Received a list"),
    "no form": ("{}", "BAD_REQUEST", "exactly one of the input fields"),
    "two forms": ('{"instances":[[1,2,3,4]],"inputs":[[1,2,3,4]]}', "BAD_REQUEST", "exactly one"),
    "records that are no list": ('{"dataframe_records":{}}', "BAD_REQUEST", "list of records"),
    "a split that is a list": ('{"dataframe_split":[]}', "BAD_REQUEST", "must be a dictionary"),
    "a split without data": ('{"dataframe_split":{"columns":[]}}', "BAD_REQUEST", "'data' field"),
    "a missing column": (
        '{"dataframe_records":[{"x0":1,"x1":2,"x2":3,"c":1}]}',
        "INVALID_PARAMETER_VALUE",
        "Model is missing inputs ['x3']. Note that there were extra inputs: ['c'].",
    ),
    "a column twice": (
        '{"dataframe_split":{"columns":["x0","y","y","x1","x0","x2","x3"],"data":[[1,2,3,4,5,6,7]]}}',
        "INVALID_PARAMETER_VALUE",
        "the column 'x0' is named 2 times, expected it once",
    ),
    "a boolean": ('{"instances":true}', "BAD_REQUEST", "instances is a boolean, expected a list"),
    "a text": ('{"instances":[[1,2,3,"abc"]]}', "BAD_REQUEST", '"x3" is "abc", expected a number'),
    "a null": ('{"instances":[[1,2,3,null]]}', "BAD_REQUEST", '"x3" is null, expected a number'),
    "too few values": (
        '{"instances":[[1,2,3]]}',
        "INVALID_PARAMETER_VALUE",
        "3 values were sent, expected 4",
    ),
    "unequal columns": (
        '{"inputs":{"x0":[1],"x1":[1,2]}}',
        "INVALID_PARAMETER_VALUE",
        "not the same",
    ),
    "no rows": ('{"instances":[]}', "BAD_REQUEST", "at least one row"),
}


@pytest.mark.parametrize("name", MLFLOW_REFUSED)
async def test_mlflow_s_errors(client: httpx.AsyncClient, name: str) -> None:
    """400 with MLflow's code and a message that names the value."""
    body, code, message = MLFLOW_REFUSED[name]
    content = body.encode("latin-1")
    answer = await client.post(
        "/invocations", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error_code", "message"}
    assert answer.json()["error_code"] == code
    assert message in answer.json()["message"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text/plain", "only supports the following content types"),
        (None, "only supports the following content types"),
        ("application/json; charset=latin-1", "only supports UTF-8"),
        ("application/json; format=pandas-split", "Unrecognized content type parameters: format"),
    ],
)
async def test_mlflow_s_content_types(
    client: httpx.AsyncClient, kind: str | None, message: str
) -> None:
    """415 in plain text."""
    headers = {} if kind is None else {"content-type": kind}
    answer = await client.post(
        "/invocations", content=b'{"instances":[[1,2,3,4]]}', headers=headers
    )
    assert (answer.status_code, answer.headers["content-type"][:10]) == (415, "text/plain")
    assert message in answer.text


async def test_mlflow_s_other_routes(client: httpx.AsyncClient) -> None:
    """What its clients ask before they predict."""
    ping = await client.get("/ping")
    assert (ping.status_code, ping.content) == (200, b"\n")
    assert (await client.get("/version")).status_code == 200


async def test_too_many_rows(client: httpx.AsyncClient) -> None:
    """The limit of rows holds in every protocol."""
    for path, body in (
        ("/invocations", {"instances": [ROW] * 101}),
        ("/invocations", {"dataframe_records": [RECORD | {"id": 1}] * 101}),
        (INFER, tensor(np.zeros((101, 4)))),
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code == 413, answer.text
        assert "at most 100" in answer.text


async def test_a_long_body_is_read_in_slices(client: httpx.AsyncClient) -> None:
    """Bodies above 16 KiB take another way to the same answer."""
    expected = (await predicted(client, RECORD, "numbers"))["prediction"]
    record = {f"{name}": str(value) for name, value in RECORD.items()} | {"note": "n" * 300}
    answer = await client.post("/invocations", json={"dataframe_records": [record] * 100})
    assert answer.json() == {"predictions": [expected] * 100}


# -- the inference protocol ------------------------------------------------------------------------


def tensor(matrix: Any, datatype: str = "FP32", **request: Any) -> dict[str, Any]:
    """A request of one tensor."""
    matrix = np.asarray(matrix)
    shape, data = list(matrix.shape), matrix.ravel().tolist()
    one = {"name": "input-0", "shape": shape, "datatype": datatype, "data": data}
    return {"inputs": [one], **request}


async def test_one_tensor(client: httpx.AsyncClient) -> None:
    """Labels and probabilities of [N, F]; the id is returned."""
    expected = await predicted(client, RECORD, "numbers")

    answer = await client.post(INFER, json=tensor([ROW, ROW], id="7"))

    document = answer.json()
    assert (document["model_name"], document["model_version"], document["id"]) == (
        "numbers",
        "1",
        "7",
    )
    label, probabilities = document["outputs"]
    assert label == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [2],
        "data": [expected["prediction"]] * 2,
    }
    assert (probabilities["shape"], probabilities["datatype"]) == ([2, 3], "FP32")
    assert probabilities["data"] == pytest.approx(
        [*expected["probabilities"].values()] * 2, abs=1e-6
    )


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64", "UINT8"])
async def test_numbers_of_any_type(client: httpx.AsyncClient, datatype: str) -> None:
    """Numbers are converted to the model's type."""
    expected = (await predicted(client, dict(zip(NAMES, [1, 2, 3, 4], strict=True)), "sum"))[
        "prediction"
    ]
    answer = await client.post("/v2/models/sum/infer", json=tensor([[1, 2, 3, 4]], datatype))
    assert answer.json()["outputs"] == [
        {"name": "value", "datatype": "FP64", "shape": [1], "data": [expected]}
    ]


async def test_what_may_be_left_out_may_be_null(client: httpx.AsyncClient) -> None:
    """Clients of generated classes write every field."""
    body = tensor([ROW], id=None, outputs=None, parameters=None)
    body["inputs"][0]["parameters"] = None
    answer = await client.post(INFER, json=body)
    assert answer.json() == (await client.post(INFER, json=tensor([ROW]))).json()
    body["outputs"] = [{"name": "label", "parameters": None}]
    assert len((await client.post(INFER, json=body)).json()["outputs"]) == 1


async def test_nested_data(client: httpx.AsyncClient) -> None:
    """`data` may be nested as the shape is."""
    body = tensor([ROW])
    body["inputs"][0]["data"] = [ROW]
    assert (await client.post(INFER, json=body)).status_code == 200


NESTED: dict[str, tuple[list[int], list[list[float]], str]] = {
    "a value in the next row": ([2, 4], [[1, 2, 3], [4, 5, 6, 7, 8]], "data[0] has 3 values"),
    "columns for rows": ([2, 4], [[1, 5], [2, 6], [3, 7], [4, 8]], "data[0] has 2 values"),
    "one array for two rows": ([2, 4], [[1, 2, 3, 4, 5, 6, 7, 8]], "data[0] has 8 values"),
    "an empty array": ([1, 4], [[1, 2, 3, 4], []], "data[1] has 0 values"),
    "three sizes": ([1, 2, 2], [[1, 2], [3, 4]], "expected [N] or [N, F]"),
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("padding", [0, 20_000])
async def test_nested_data_of_another_shape_is_refused(
    client: httpx.AsyncClient, name: str, padding: int
) -> None:
    """As many values as the shape says, but in other rows: read flat, they would be predicted."""
    shape, data, message = NESTED[name]
    body = tensor([ROW])
    body["inputs"][0] |= {"shape": shape, "data": data}
    answer = await client.post(INFER, content=json.dumps(body) + " " * padding)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("width", [None, 1])
async def test_one_tensor_per_column(client: httpx.AsyncClient, width: int | None) -> None:
    """Named columns of their own types, [N] or [N, 1], in any order."""
    expected = (await predicted(client, MIXED_ROW | {"mass": 4000.0, "sex": "MALE"}, "mixed"))[
        "prediction"
    ]
    shape = [2] if width is None else [2, width]
    columns = {
        "wet": ("BOOL", False),
        "zone": ("INT64", 20),
        "island": ("BYTES", "Dream"),
        "mass": ("FP32", 4000.0),
        "count": ("FP64", 3.0),
        "sex": ("BYTES", "MALE"),
    }
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "data": [value] * 2}
        for name, (datatype, value) in columns.items()
    ]
    answer = await client.post("/v2/models/mixed/infer", json={"inputs": inputs})
    assert answer.json()["outputs"][0]["data"] == [expected] * 2


@pytest.mark.parametrize("count", [1, 3000])
async def test_nan_in_json_is_null(tmp_path: Path, count: int) -> None:
    """Triton's client writes it if it sends no binary tensors; texts that hold it stay texts, and
    long requests are read alike."""
    write_bundle(tmp_path, "mixed", inputs=MIXED)
    values = MIXED_ROW | {"mass": float("nan"), "sex": "MALE"}
    datatypes = ["BYTES", "FP32", "INT64", "BYTES", "INT64", "BOOL"]
    inputs = [
        {"name": name, "datatype": datatype, "shape": [count], "data": [value] * count}
        for (name, value), datatype in zip(values.items(), datatypes, strict=True)
    ]
    text = json.dumps({"id": 'NaN "NaN\\', "inputs": inputs})
    async with app_client(tmp_path, default_model="mixed", max_rows=count) as client:
        expected = await predicted(client, values | {"mass": None}, "mixed")
        answer = (await client.post("/v2/models/mixed/infer", content=text)).json()
        assert answer["id"] == 'NaN "NaN\\'
        assert answer["outputs"][0]["data"] == [expected["prediction"]] * count
        nan = json.dumps(tensor([[float("nan")]])).replace('"x"', "NaN")
        for wrong in (nan.replace("NaN", "-NaN"), nan.replace("NaN", "Infinity"), '"NaN'):
            refused = await client.post("/v2/models/mixed/infer", content=wrong)
            assert refused.status_code == 400
            assert "failed to parse the request JSON buffer" in refused.json()["error"]


def binary(
    parts: list[tuple[dict[str, Any], bytes]], **request: Any
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with binary tensors."""
    inputs = [one | {"parameters": {"binary_data_size": len(raw)}} for one, raw in parts]
    text = json.dumps({"inputs": inputs, **request}).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(text)),
    }
    return text + b"".join(raw for _, raw in parts), headers


async def test_binary_tensors(client: httpx.AsyncClient) -> None:
    """Raw numbers in, raw labels and probabilities out."""
    expected = await predicted(client, RECORD, "numbers")
    raw = np.array([ROW, ROW], "<f4").tobytes()
    one = {"name": "input", "shape": [2, 4], "datatype": "FP32"}
    body, headers = binary([(one, raw)], parameters={"binary_data_output": True})

    answer = await client.post(INFER, content=body, headers=headers)

    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    label, probabilities = json.loads(answer.content[:length])["outputs"]
    text = expected["prediction"].encode()
    size = label["parameters"]["binary_data_size"]
    rest = answer.content[length:]
    assert rest[:size] == 2 * (len(text).to_bytes(4, "little") + text)
    assert probabilities["parameters"]["binary_data_size"] == len(rest) - size
    values = np.frombuffer(rest[size:], "<f4").reshape(2, 3)
    assert values[0] == pytest.approx(list(expected["probabilities"].values()), abs=1e-6)


async def test_null_for_the_values_of_a_binary_tensor_means_none(client: httpx.AsyncClient) -> None:
    """Clients that write every field of a tensor send it; infinity in the bytes is named."""
    one = {"name": "input", "shape": [1, 4], "datatype": "FP32"}
    body, headers = binary([(one, raw := np.array(ROW, "<f4").tobytes())])
    expected = (await client.post(INFER, content=body, headers=headers)).json()
    body, headers = binary([(one | {"data": None}, raw)])
    assert (await client.post(INFER, content=body, headers=headers)).json() == expected

    body, headers = binary([(one, raw[:12] + np.array([np.inf], "<f4").tobytes())])
    refused = await client.post(INFER, content=body, headers=headers)
    assert (refused.status_code, "is infinity, or" in refused.json()["error"]) == (400, True)


async def test_booleans_are_no_numbers_in_any_form(client: httpx.AsyncClient) -> None:
    """One tensor of a BOOL for each column is refused as the same values in JSON are."""
    one = {"name": "input", "shape": [1, 4], "datatype": "BOOL"}
    in_json = await client.post(INFER, json={"inputs": [one | {"data": [True] * 4}]})
    body, headers = binary([(one, b"\1" * 4)])
    answer = await client.post(INFER, content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (in_json.status_code, in_json.json())
    assert answer.status_code == 400
    assert '"x0" is true, expected a number' in answer.json()["error"]


async def test_binary_texts(client: httpx.AsyncClient) -> None:
    """Each text has its length before it."""
    expected = (await predicted(client, MIXED_ROW | {"mass": 4000.0, "sex": "MALE"}, "mixed"))[
        "prediction"
    ]

    def text(value: str) -> bytes:
        return len(value).to_bytes(4, "little") + value.encode()

    parts = [
        ("island", "BYTES", text("Dream")),
        ("sex", "BYTES", text("MALE")),
        ("mass", "FP32", np.array([4000], "<f4").tobytes()),
        ("count", "INT32", np.array([3], "<i4").tobytes()),
        ("zone", "INT64", np.array([20], "<i8").tobytes()),
        ("wet", "BOOL", b"\0"),
    ]
    body, headers = binary(
        [({"name": name, "datatype": kind, "shape": [1]}, raw) for name, kind, raw in parts]
    )
    answer = await client.post("/v2/models/mixed/infer", content=body, headers=headers)
    assert answer.json()["outputs"][0]["data"] == [expected]


async def test_chosen_outputs_and_their_other_names(client: httpx.AsyncClient) -> None:
    """MLServer's names of the outputs are known, too, and then the form is MLServer's."""
    own = tensor([ROW], outputs=[{"name": "probabilities"}, {"name": "label"}])
    probabilities, label = (await client.post(INFER, json=own)).json()["outputs"]
    body = tensor([ROW], outputs=[{"name": "predict_proba"}, {"name": "predict"}])

    answer = await client.post(INFER, json=body)

    assert answer.json()["outputs"] == [
        {
            "name": "predict_proba",
            "datatype": "FP64",
            "shape": [1, 3],
            "data": pytest.approx(probabilities["data"]),
            "parameters": {"content_type": "np"},
        },
        label | {"name": "predict", "shape": [1, 1], "parameters": {"content_type": "np"}},
    ]


async def test_a_regressor_predicts_values_under_mlserver_s_name(client: httpx.AsyncClient) -> None:
    """It has no probabilities, and its values are no labels."""
    path = "/v2/models/sum/infer"
    (value,) = (await client.post(path, json=tensor([ROW, ROW]))).json()["outputs"]

    answer = await client.post(path, json=tensor([ROW, ROW], outputs=[{"name": "predict"}]))

    assert answer.json()["outputs"] == [
        value | {"name": "predict", "shape": [2, 1], "parameters": {"content_type": "np"}}
    ]
    for name in ("predict_proba", "label"):
        refused = await client.post(path, json=tensor([ROW], outputs=[{"name": name}]))
        assert (refused.status_code, "expected value" in refused.json()["error"]) == (400, True)


async def test_null_is_what_was_left_out(client: httpx.AsyncClient) -> None:
    """Some clients write all fields."""
    expected = (await client.post(INFER, json=tensor([ROW]))).json()
    body = tensor([ROW], id=None, outputs=None, parameters=None)
    body["inputs"][0]["parameters"] = None
    assert (await client.post(INFER, json=body)).json() == expected
    chosen = [{"name": output["name"], "parameters": None} for output in expected["outputs"]]
    assert (await client.post(INFER, json=body | {"outputs": chosen})).json() == expected


async def test_mlserver_s_outputs_as_binary_tensors(client: httpx.AsyncClient) -> None:
    """Eight bytes for each probability, as the datatype says."""
    chosen = [{"name": "predict_proba", "parameters": {"binary_data": True}}]
    answer = await client.post(INFER, json=tensor([ROW], outputs=chosen))
    length = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"] == {"content_type": "np", "binary_data_size": 24}
    assert np.frombuffer(answer.content[length:], "<f8").sum() == pytest.approx(1)


async def test_the_most_probable_classes(client: httpx.AsyncClient) -> None:
    """Triton's parameter `classification`; with 0, as without it, the probabilities."""
    plain = (await client.post(INFER, json=tensor([ROW, ROW]))).json()["outputs"]
    for asked in ({"classification": 0}, {"classification": None}):
        chosen = [{"name": "label"}, {"name": "probabilities", "parameters": asked}]
        answer = await client.post(INFER, json=tensor([ROW, ROW], outputs=chosen))
        assert answer.json()["outputs"] == plain
    chosen = [{"name": "probabilities", "parameters": {"classification": 2}}]
    (found,) = (await client.post(INFER, json=tensor([ROW, ROW], outputs=chosen))).json()["outputs"]
    assert (found["datatype"], found["shape"]) == ("BYTES", [2, 2])
    probabilities = plain[1]["data"][:3]
    first = max(range(3), key=probabilities.__getitem__)
    label = plain[0]["data"][0]
    assert found["data"][0] == found["data"][2] == f"{probabilities[first]:f}:{first}:{label}"


def with_input(parameters: dict[str, Any]) -> dict[str, Any]:
    """A right request whose tensor has these parameters."""
    body = tensor([ROW])
    body["inputs"][0]["parameters"] = parameters
    return body


def with_output(name: str, **parameters: Any) -> dict[str, Any]:
    """A right request for one output with these parameters."""
    return tensor([ROW], outputs=[{"name": name, "parameters": parameters}])


INDEX = "/v2/repository/index"


async def test_the_index_names_the_models_that_answer(tmp_path: Path) -> None:
    """And those that do not, unless only the ready ones are asked for; a body that is no such
    request is refused."""
    write_bundle(tmp_path)
    write_bundle(tmp_path, "broken", changes={"format": 99})
    async with app_client(tmp_path, default_model="numbers") as client:
        all_of_them = (await client.post(INDEX, json={})).json()
        assert (await client.post(INDEX)).json() == all_of_them
        assert [model["name"] for model in all_of_them] == ["numbers", "broken"]
        ready = (await client.post(INDEX, json={"ready": True})).json()
        assert ready == [{"name": "numbers", "version": "1", "state": "READY", "reason": ""}]
        for body in ("{", "[]", '{"ready": 1}', "\xff"):
            answer = await client.post(INDEX, content=body.encode("latin-1"))
            assert (answer.status_code, answer.json().keys()) == (400, {"error"})
        assert (await client.post(INDEX, content=b" " * 5000)).status_code == 413


INFER_REFUSED: dict[str, tuple[Any, str]] = {
    "not JSON": (b"{", "failed to parse the request JSON buffer"),
    "no inputs": ({}, "inputs"),
    "an empty list": ({"inputs": []}, "expected 4 inputs but got 0"),
    "a wrong shape": (tensor([[1, 2, 3]]), "Expected [-1,4], got [1,3]"),
    "a shape of many digits": (
        b'{"inputs":[{"name":"i","shape":[%b,%b],"datatype":"FP32","data":[1]}]}'
        % (b"9" * 4000, b"9" * 4000),
        "shape is ['an integer of more than 64 bits', 'an integer",
    ),
    "too few values": (
        {"inputs": [{"name": "i", "shape": [2, 4], "datatype": "FP32", "data": [1, 2]}]},
        "has 2 values, expected 8",
    ),
    "an unknown datatype": (tensor([ROW], "FLOAT"), "datatype is 'FLOAT', expected one of"),
    "an unknown output": (
        tensor([ROW], outputs=[{"name": "y"}]),
        "unexpected inference output 'y'",
    ),
    "an output twice": (
        tensor([ROW], outputs=[{"name": "label"}, {"name": "predict"}, {"name": "label"}]),
        "the output 'label' was asked for twice, expected once",
    ),
    "classes of another output": (
        with_output("label", classification=2),
        "output 'label': parameters.classification is 2, expected it for the output probabilities",
    ),
    "classes in words": (
        with_output("probabilities", classification="3"),
        "parameters.classification is 3, expected how many classes are wanted",
    ),
    "fewer than no classes": (
        with_output("probabilities", classification=-1),
        "parameters.classification is -1, expected how many classes are wanted",
    ),
    "an input in shared memory": (
        with_input({"shared_memory_region": "r", "shared_memory_byte_size": 16}),
        "input 'input-0': parameters.shared_memory_region is not supported",
    ),
    "an output in shared memory": (
        with_output("label", shared_memory_byte_size=16),
        "output 'label': parameters.shared_memory_byte_size is not supported",
    ),
    "binary data in words": (
        with_output("label", binary_data="true"),
        "output 'label': parameters.binary_data is true, expected true or false",
    ),
    "all binary data as a number": (
        tensor([ROW], parameters={"binary_data_output": 1}),
        "parameters.binary_data_output is 1, expected true or false",
    ),
    "data and binary data": (
        with_input({"binary_data_size": 0}),
        "input 'input-0' has data and binary_data_size, expected one of them",
    ),
    "null for data": (
        {"inputs": [{"name": "i", "shape": [1, 4], "datatype": "FP32", "data": None}]},
        "input 'i' has neither data nor binary_data_size",
    ),
    "a text": (
        {"inputs": [{"name": "i", "shape": [1, 4], "datatype": "BYTES", "data": ["a"] * 4}]},
        '"x0" is "a", expected a number',
    ),
    "a null": (
        {"inputs": [{"name": "i", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, None]}]},
        '"x3" is null',
    ),
    "too large": (tensor([[1, 2, 3, 1e39]]), '"x3" is 1e+39'),
    "an unknown input": (
        {
            "inputs": [
                {"name": name, "shape": [1], "datatype": "FP32", "data": [1]}
                for name in ("x0", "x1", "y")
            ]
        },
        "unexpected inference input 'y'",
    ),
    "some unknown inputs": (
        {
            "inputs": [
                {"name": name, "shape": [1], "datatype": "FP32", "data": [1]}
                for name in ("x0", "w", "z", "y", "v")
            ]
        },
        "unexpected inference input 'w'",
    ),
    "an input twice": (
        {
            "inputs": [
                {"name": name, "shape": [1], "datatype": "FP32", "data": [1]}
                for name in ("x0", "x1", "x2", "x1", "x3")
            ]
        },
        "the input 'x1' was sent twice, expected one tensor per column",
    ),
    "a missing input": (
        {"inputs": [{"name": "x0", "shape": [1], "datatype": "FP32", "data": [1]}]},
        "Missing: x1, x2, x3",
    ),
}


@pytest.mark.parametrize("name", INFER_REFUSED)
async def test_the_inference_protocol_s_errors(client: httpx.AsyncClient, name: str) -> None:
    """400 with a sentence."""
    body, message = INFER_REFUSED[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await client.post(INFER, content=content)
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}
    assert message in answer.json()["error"]


@pytest.mark.parametrize("length", ["9999", "-1", "x", "9" * 30])
async def test_a_wrong_length_of_the_json(client: httpx.AsyncClient, length: str) -> None:
    """The header must fit the body."""
    headers = {"inference-header-content-length": length}
    answer = await client.post(INFER, content=b"{}", headers=headers)
    assert (answer.status_code, "Inference-Header" in answer.json()["error"]) == (400, True)


async def test_models_versions_and_states(client: httpx.AsyncClient) -> None:
    """What a client asks before it predicts."""
    assert (await client.get("/v2")).json()["extensions"] == [
        "binary_tensor_data",
        "classification",
    ]
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
    assert (await client.get("/v2/models")).json() == {"models": ["mixed", "numbers", "sum"]}
    assert (await client.get("/v2/models/mixed/ready")).json() == {"name": "mixed", "ready": True}
    metadata = (await client.get("/v2/models/mixed/versions/1")).json()
    assert metadata["inputs"][0] == {"name": "island", "datatype": "BYTES", "shape": [-1]}
    assert metadata["outputs"][1]["shape"] == [-1, 3]
    index = (await client.post("/v2/repository/index")).json()
    assert [entry["state"] for entry in index] == ["READY"] * 3
    by_version = "/v2/models/numbers/versions/{}/infer"
    assert (await client.post(by_version.format(1), json=tensor([ROW]))).status_code == 200
    for answer in (
        await client.post(by_version.format(2), json=tensor([ROW])),
        await client.get("/v2/models/numbers/versions/2/ready"),
        await client.get("/v2/models/none"),
        await client.post("/v2/models/none/infer", json=tensor([ROW])),
    ):
        assert (answer.status_code, answer.json().keys()) == (404, {"error"})


# -- KServe's older protocol -----------------------------------------------------------------------


async def test_version_1(client: httpx.AsyncClient) -> None:
    """`instances` in, `predictions` out; errors as in version 2."""
    expected = (await predicted(client, RECORD, "numbers"))["prediction"]
    answer = await client.post("/v1/models/numbers:predict", json={"instances": [ROW]})
    assert answer.json() == {"predictions": [expected]}
    body = json.dumps({"instances": [ROW]}).encode()  # KServe's client names no content type
    for headers in ({}, {"content-type": "text/csv"}):
        bare = await client.post("/v1/models/numbers:predict", content=body, headers=headers)
        assert bare.json() == answer.json()
    wrong = await client.post("/v1/models/numbers:predict", json={"instances": [["a"]]})
    assert (wrong.status_code, wrong.json().keys()) == (400, {"error"})
    assert (await client.get("/v1/models")).json() == {"models": ["mixed", "numbers", "sum"]}
    assert (await client.get("/v1/models/sum")).json() == {"name": "sum", "ready": True}
    assert (await client.post("/v1/models/numbers:explain", json={})).status_code == 404
    asked = await client.get("/v1/models/numbers:predict")
    assert (asked.status_code, asked.headers["allow"]) == (405, "OPTIONS, POST")
    for name, methods in (("numbers:predict", "OPTIONS, POST"), ("sum", "GET, HEAD, OPTIONS")):
        assert (await client.options(f"/v1/models/{name}")).headers["allow"] == methods


# -- all of them -----------------------------------------------------------------------------------


async def test_they_are_counted_as_predictions(client: httpx.AsyncClient) -> None:
    """Answers and refusals are in the same metrics as those of `/predict`."""
    await client.post("/invocations", json={"instances": [ROW]})
    await client.post(INFER, json=tensor([ROW]))
    await client.post(INFER, json=tensor([[1]]))
    found = await samples(client)
    answered = {key: value for key, value in found.items() if "halfcore_requests_total" in key[0]}
    assert sum(value for key, value in answered.items() if "200" in key) == 2
    assert sum(value for key, value in answered.items() if "bad_request" in key) == 1
