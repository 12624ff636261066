#!/bin/bash
# Makes the database of MLflow's server, next to the server's own; runs once, when the data
# directory is new.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=password="$(cat /run/secrets/mlflow_password)" \
    --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
CREATE ROLE mlflow LOGIN PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE halfcore FROM PUBLIC;
SQL
