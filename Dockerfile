# All images of the project: `just image` builds the targets `server`, `export`, `mlflow` and `loadlab`, `just image baseline` builds the
# baseline. docs/decisions/0010 says why so.
#
# Every stage ends in files below /opt/halfcore; an image is the base and at most three layers: dependencies, the package, the example models.
ARG PYTHON=python:3.13-slim

# -- builders -------------------------------------------------------------------------------------------------------------------

FROM ${PYTHON} AS builder
ARG UV_VERSION=0.13.8
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore uv==${UV_VERSION}
ENV UV_PROJECT_ENVIRONMENT=/opt/halfcore UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_NO_PROGRESS=1
WORKDIR /src
COPY pyproject.toml uv.lock ./
COPY server/pyproject.toml server/
COPY model_export/pyproject.toml model_export/
COPY loadlab/pyproject.toml loadlab/
# Bytecode that is never checked against its source: the files of an image do not change. Times are one moment, and uv's note of when it
# installed is left out, so that equal files are equal layers.
RUN printf '%s\n' '#!/bin/sh' 'set -eu' \
    'find "$1" -name uv_cache.json -delete; find "$1" -path "*.dist-info/RECORD" -exec sed -i /uv_cache.json/d {} +' \
    'python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$1"' \
    'find "$1" -depth -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH:-0}" {} +' \
    > /usr/local/bin/seal && chmod 755 /usr/local/bin/seal

# What a package needs from others: changes with the lock, not with the code. `--build-arg SERVER_EXTRAS=grpc` adds gRPC, which most clients do
# not need: a tenth of the size.
FROM builder AS server-dependencies
ARG SERVER_EXTRAS=""
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-dev --no-install-workspace --package halfcore ${SERVER_EXTRAS:+$(printf -- '--extra %s ' ${SERVER_EXTRAS})}
# Dead weight of a server, a quarter of it all: the runtime's training and conversion tools, its library for C (Python's extension has the
# runtime within), numpy's tests and headers, and the languages in which a dependency of Litestar makes up names.
RUN cd /opt/halfcore/lib/python3.*/site-packages \
    && rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets onnxruntime/capi/libonnxruntime.so.* \
        numpy/_core/include numpy/_core/lib \
    && find numpy -type d -name tests -prune -exec rm -rf {} + \
    && find faker/providers -mindepth 2 -maxdepth 2 -type d ! -name 'en*' ! -name la ! -name __pycache__ -exec rm -rf {} + \
    && seal /opt/halfcore

# With the driver for artifacts at s3://, which a registry may name, and the libraries that load boosted trees. CatBoost is left out: with
# its plotting libraries it is ten times as large as the two others together; `--build-arg EXPORT_EXTRAS="s3 xgboost lightgbm catboost"` adds it.
FROM builder AS export-dependencies
ARG EXPORT_EXTRAS="s3 xgboost lightgbm"
# LightGBM needs the system's OpenMP, which the base does not have; the image gets that one file.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-dev --no-install-workspace --package halfcore-export $(printf -- '--extra %s ' ${EXPORT_EXTRAS}) \
    && install --mode=644 /usr/lib/*/libgomp.so.1 /opt/halfcore/lib/ && seal /opt/halfcore

FROM builder AS mlflow-dependencies
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-install-workspace --package halfcore-export --only-group mlflow-server && seal /opt/halfcore

FROM builder AS loadlab-dependencies
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-dev --no-install-workspace --package halfcore-loadlab && seal /opt/halfcore

# The baseline's environment is its own: none of the workspace's packages are in it.
FROM builder AS baseline-dependencies
COPY loadlab/baseline/pyproject.toml loadlab/baseline/uv.lock /baseline/
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-default-groups --project /baseline && seal /opt/halfcore

# The packages themselves, without what they need.
FROM server-dependencies AS server-package
COPY LICENSE ./
COPY server server
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --python /opt/halfcore --prefix /package ./server && seal /package

FROM export-dependencies AS export-package
COPY LICENSE ./
COPY model_export model_export
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --python /opt/halfcore --prefix /package ./model_export && seal /package

FROM loadlab-dependencies AS loadlab-package
COPY LICENSE ./
COPY loadlab loadlab
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --python /opt/halfcore --prefix /package ./loadlab && seal /package

FROM baseline-dependencies AS baseline-package
COPY loadlab/baseline/baseline baseline
RUN site="$(/opt/halfcore/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && install --directory "/package${site#/opt/halfcore}" && cp -r baseline "/package${site#/opt/halfcore}/" && seal /package

# Trained, registered, exported and proven here; only the bundles leave this stage, and for the baseline the registry.
FROM export-package AS examples
ARG EXAMPLES="iris penguins-lr penguins-rf penguins-svm cover-small"
WORKDIR /work
RUN cp -r /package/. /opt/halfcore/ \
    && GIT_PYTHON_REFRESH=quiet /opt/halfcore/bin/model-export examples ${EXAMPLES} --out /bundles \
    && chmod -R a+rX /bundles

# -- images ---------------------------------------------------------------------------------------------------------------------

# Process 1 of every container. The kernel drops a signal that process 1 does not handle, and Python takes a second or more until it
# does: without an init a `docker stop` in that time waits for its whole grace period.
FROM ${PYTHON} AS init
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*

FROM ${PYTHON} AS base
COPY --from=init /usr/bin/tini-static /usr/local/bin/tini
# The base's pip is of no use to what runs, and a way in for who breaks in.
RUN python -c "import pathlib, pip, shutil; shutil.rmtree(pathlib.Path(pip.__file__).parent)" \
    # What a container writes goes here; a new volume takes the owner over.
    && install --directory --owner=65532 --group=65532 /data
ENV PATH=/opt/halfcore/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1
WORKDIR /
STOPSIGNAL SIGTERM
USER 65532:65532

FROM base AS server
ARG VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.title="halfcore" \
      org.opencontainers.image.description="Serves ONNX model bundles over HTTP on a fraction of a core" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=server-dependencies /opt/halfcore /opt/halfcore
COPY --from=server-package /package /opt/halfcore
COPY --from=examples /bundles /bundles
ENV HALFCORE_HOST=0.0.0.0 \
    HALFCORE_PORT=8000 \
    HALFCORE_BUNDLES=/bundles \
    # What is kept goes to one place, so that one volume is enough; the folder is the image's user's.
    HALFCORE_STORE=/data/store \
    HALFCORE_STATE=/data/state \
    HALFCORE_PREDICTION_LOG_SPOOL=/data/spool \
    # Weaker than MODEL_NAME and than a mounted directory with one model.
    HALFCORE_FALLBACK_MODEL=iris \
    # The health check reads it; a flag such as `--port 9000` is not in the environment.
    HALFCORE_ADDRESS_FILE=/dev/shm/halfcore-address \
    # Writable under a read-only root too, in Docker and in Kubernetes. 64 MB are enough for what the server puts there.
    TMPDIR=/dev/shm \
    ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
HEALTHCHECK --start-period=120s --interval=10s --timeout=15s --retries=3 \
    CMD ["python", "-I", "-m", "halfcore.healthcheck"]
ENTRYPOINT ["tini", "-s", "--", "halfcore"]
CMD ["serve"]

FROM base AS export
ARG VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.title="halfcore-export" \
      org.opencontainers.image.description="Exports models of an MLflow registry to ONNX bundles, with proof" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=export-dependencies /opt/halfcore /opt/halfcore
COPY --from=export-package /package /opt/halfcore
# `docker run --user "$(id -u):$(id -g)"` makes bundles that belong to who typed it, so any user may run this image.
USER 0:0
RUN install --directory --mode=1777 /work
USER 65532:65532
ENV HOME=/tmp GIT_PYTHON_REFRESH=quiet MPLCONFIGDIR=/tmp LD_LIBRARY_PATH=/opt/halfcore/lib
WORKDIR /work
ENTRYPOINT ["tini", "-s", "--", "model-export"]
CMD ["--help"]

FROM base AS mlflow
ARG VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.title="halfcore-mlflow" \
      org.opencontainers.image.description="MLflow's tracking server with the drivers for PostgreSQL and S3" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=mlflow-dependencies /opt/halfcore /opt/halfcore
ENV HOME=/tmp GIT_PYTHON_REFRESH=quiet
EXPOSE 5000
ENTRYPOINT ["tini", "-s", "--", "mlflow"]
CMD ["server", "--host", "0.0.0.0", "--port", "5000"]

FROM base AS loadlab
ARG VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.title="halfcore-loadlab" \
      org.opencontainers.image.description="Load lab: Locust master and workers" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=loadlab-dependencies /opt/halfcore /opt/halfcore
COPY --from=loadlab-package /package /opt/halfcore
ENV HOME=/tmp MPLCONFIGDIR=/tmp
ENTRYPOINT ["tini", "-s", "--", "loadlab"]
CMD ["--help"]

# What `BASELINE_IMAGE` may name: the same models from the same registry, whose files are within. `docker run … tuned --model iris …` is another.
FROM base AS baseline
ARG VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.title="halfcore-baseline" \
      org.opencontainers.image.description="What halfcore is compared with: FastAPI and MLflow" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=baseline-dependencies /opt/halfcore /opt/halfcore
COPY --from=baseline-package /package /opt/halfcore
# MLflow opens its store to write, and an artifact's path is the one that it was registered with.
COPY --from=examples --chown=65532:65532 /work/.halfcore /work/.halfcore
ENV HOME=/tmp GIT_PYTHON_REFRESH=quiet MPLCONFIGDIR=/tmp
EXPOSE 8000
ENTRYPOINT ["tini", "-s", "--", "python", "-m", "baseline"]
CMD ["typical", "--model", "iris", "--host", "0.0.0.0", "--port", "8000", "--tracking-uri", "sqlite:////work/.halfcore/mlflow.db"]

# What is built where no target is named.
FROM server
