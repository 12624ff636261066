"""Predicts with the client that openapi-python-client made of the description.

`python client.py URL MIXED ODD`, with a row for each of two models as JSON; `made_client` is on the
path. Prints one line of JSON: six predictions, two refusals and the number of the functions.
"""

import importlib
import json
import pkgutil
import sys

import made_client.api
from made_client import Client
from made_client.api.predict import predict, predict_mixed, predict_odd_columns
from made_client.api.protocols import infer, invoke, predict_v1
from made_client.models import (
    InferenceRequest,
    MixedRecord,
    NumbersVector,
    OddColumnsRecord,
    ScoringRequest,
    Tensor,
    TensorDatatype,
)

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
row = [5.1, 3.5, 1.4, 0.2]
body = ScoringRequest(instances=[row])
tensor = Tensor(name="input", shape=[1, 4], datatype=TensorDatatype.FP64, data=row)
request = InferenceRequest(inputs=[tensor])
mixed = MixedRecord.from_dict(json.loads(sys.argv[2]))
odd = OddColumnsRecord.from_dict(json.loads(sys.argv[3]))
answers = [
    predict.sync(client=client, body=NumbersVector(features=row)).prediction,
    invoke.sync(client=client, body=body).predictions[0],
    infer.sync("numbers", client=client, body=request).outputs[0].data[0],
    predict_v1.sync("numbers", client=client, body=body).predictions[0],
    predict_mixed.sync(client=client, body=mixed).prediction,
    predict_odd_columns.sync(client=client, body=odd).prediction,
]
unknown = infer.sync("nobody", client=client, body=request)
refused = predict.sync(client=client, body=NumbersVector(features=row[:3]))
found = pkgutil.walk_packages(made_client.api.__path__, "made_client.api.")
functions = [importlib.import_module(each.name) for each in found if not each.ispkg]
print(json.dumps([answers, unknown.error, refused.code, len(functions)]))  # noqa: T201
