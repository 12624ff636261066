"""Reads an answer of `/predict` from its standard input with the models that datamodel-codegen made
of the description (`models`, on the path); prints the label and a row that it wrote, as JSON."""

import json
import sys

import models

answer = models.NumbersAnswer.model_validate_json(sys.stdin.read())
request = models.NumbersVector(features=[5.1, 3.5, 1.4, 0.2])
row = json.loads(request.model_dump_json())["features"]
print(json.dumps([answer.model_dump(mode="json")["prediction"], row]))  # noqa: T201
