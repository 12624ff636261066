"""The services that halfcore is compared with: one FastAPI service with switches, from how the
course's groups began to how far it goes.

`app` is the service; `predictors` and `onnx_runtime` are the five ways from a record to an answer;
`remote` and `noise` are what a request need not do. `__main__` starts a variant, `surroundings` the
real MLflow server and the real PostgreSQL that the first steps ask.
"""
