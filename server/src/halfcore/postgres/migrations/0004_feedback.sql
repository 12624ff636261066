-- What was true: filled by whoever learns it later, joined with what was predicted. docs/prediction-log.md explains the columns.
CREATE TABLE halfcore.feedback (
    request_id text NOT NULL CHECK (request_id <> ''),
    answer_row integer NOT NULL DEFAULT 1 CHECK (answer_row >= 1),
    actual text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (request_id, answer_row)
);

COMMENT ON TABLE halfcore.feedback IS 'What the predictions should have been; your own jobs fill it';
COMMENT ON COLUMN halfcore.feedback.request_id IS 'X-Request-Id of the request';
COMMENT ON COLUMN halfcore.feedback.answer_row IS 'row of the request, from 1';
COMMENT ON COLUMN halfcore.feedback.actual IS 'the true label or value, as text';

-- The predictions in an answer, one for each row, whatever protocol the client speaks.
CREATE FUNCTION halfcore.predictions_of(answer json) RETURNS SETOF text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT json_array_elements_text(
        CASE
            WHEN json_typeof(answer -> 'prediction') = 'array' THEN answer -> 'prediction'
            WHEN answer -> 'prediction' IS NOT NULL THEN json_build_array(answer -> 'prediction')
            WHEN json_typeof(answer -> 'predictions') = 'array' THEN answer -> 'predictions'
            WHEN json_typeof(answer -> 'outputs') = 'array' THEN answer -> 'outputs' -> 0 -> 'data'
        END
    )
$$;

CREATE VIEW halfcore.predicted_rows AS
SELECT log.at, log.request_id, row.ordinality::integer AS answer_row, log.model, log.version, log.role, row.value AS predicted
FROM halfcore.prediction_log AS log,
     halfcore.predictions_of(log.answer) WITH ORDINALITY AS row (value, ordinality);

CREATE VIEW halfcore.prediction_outcomes AS
SELECT predicted.*, feedback.actual, feedback.at AS actual_at
FROM halfcore.predicted_rows AS predicted JOIN halfcore.feedback AS feedback USING (request_id, answer_row);

-- Two numbers that are written differently, such as 1 and 1.0, are equal. Longer texts and exponents could be beyond what the type holds.
CREATE FUNCTION halfcore.as_number(value text) RETURNS double precision LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN value ~ '^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?\s*$' AND length(value) <= 50 THEN value::double precision END
$$;

CREATE VIEW halfcore.model_quality AS
SELECT date_trunc('day', at AT TIME ZONE 'UTC')::date AS day, model, version, role,
       count(*) AS rows_with_feedback,
       avg((predicted = actual OR coalesce(halfcore.as_number(predicted) = halfcore.as_number(actual), false))::integer)::double precision AS accuracy,
       avg(abs(halfcore.as_number(predicted) - halfcore.as_number(actual))) AS mean_absolute_error
FROM halfcore.prediction_outcomes
GROUP BY 1, 2, 3, 4;

COMMENT ON VIEW halfcore.predicted_rows IS 'One row for each predicted row of the log';
COMMENT ON VIEW halfcore.prediction_outcomes IS 'Predictions with what was true';
COMMENT ON VIEW halfcore.model_quality IS 'By day and version: the share of right labels, and of numbers the mean absolute error';
