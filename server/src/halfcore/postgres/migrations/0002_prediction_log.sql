-- What was predicted: one row per answered request, by day of the answer in UTC. docs/prediction-log.md explains the columns.
-- `json`, not `jsonb`: it keeps the client's own bytes and takes every text that the server takes.
CREATE TABLE halfcore.prediction_log (
    at timestamptz NOT NULL,
    writer uuid NOT NULL,
    row_number bigint NOT NULL,
    row_count integer NOT NULL,
    latency_s real NOT NULL,
    request_id text NOT NULL,
    model text NOT NULL,
    version text NOT NULL,
    role text NOT NULL,
    inputs json,
    answer json NOT NULL,
    challenger_version text,
    challenger_outcome text,
    challenger_answer json,
    challenger_latency_s real
) PARTITION BY RANGE (at);

CREATE INDEX prediction_log_request_id ON halfcore.prediction_log (request_id);
CREATE INDEX prediction_log_at ON halfcore.prediction_log USING brin (at);

-- How far each writer's rows are in the table; moved in the transaction that copies them.
CREATE TABLE halfcore.prediction_log_offsets (
    writer uuid PRIMARY KEY,
    next_row_number bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Make the partitions of these days, which the server calls ahead of time. ATTACH takes a weaker lock than CREATE … PARTITION OF:
-- neither readers nor other writers wait.
CREATE FUNCTION halfcore.prediction_log_ensure_days(first_day date, last_day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    day date;
    partition text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('halfcore.prediction_log'));
    FOR day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
        partition := 'prediction_log_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('halfcore.' || partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE halfcore.%I (LIKE halfcore.prediction_log INCLUDING DEFAULTS)', partition);
        EXECUTE format('ALTER TABLE halfcore.prediction_log ATTACH PARTITION halfcore.%I FOR VALUES FROM (%L) TO (%L)',
            partition, day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00');
    END LOOP;
END $$;

-- Drop the partitions of all days before this one, and the marks of writers that wrote nothing since; returns how many partitions.
CREATE FUNCTION halfcore.prediction_log_drop_before(first_kept date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    partition regclass;
    dropped integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('halfcore.prediction_log'));
    FOR partition IN
        SELECT i.inhrelid::regclass FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'halfcore.prediction_log'::regclass
          AND c.relname ~ '^prediction_log_[0-9]{8}$' AND substr(c.relname, 16)::date < first_kept
    LOOP
        EXECUTE format('DROP TABLE %s', partition);
        dropped := dropped + 1;
    END LOOP;
    -- A day's grace for clocks that differ: a mark must outlive every row that it guards.
    DELETE FROM halfcore.prediction_log_offsets WHERE updated_at < (first_kept - 1)::timestamp AT TIME ZONE 'UTC';
    RETURN dropped;
END $$;

-- The table's owner alone drops; whoever logs needs INSERT, the marks, and the making of partitions.
REVOKE ALL ON FUNCTION halfcore.prediction_log_drop_before(date) FROM PUBLIC;
