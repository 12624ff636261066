-- Days are counted as dates: `generate_series` of dates counted in the session's time zone, and left out the last day where summer time
-- begins at midnight. And a partition has the constraints and generated columns that somebody added to the table: without them it
-- cannot be attached.
CREATE OR REPLACE FUNCTION halfcore.prediction_log_ensure_days(first_day date, last_day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    day date;
    partition text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('halfcore.prediction_log'));
    FOR day IN SELECT first_day + n FROM generate_series(0, last_day - first_day) AS n LOOP
        partition := 'prediction_log_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('halfcore.' || partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE halfcore.%I (LIKE halfcore.prediction_log INCLUDING DEFAULTS '
            'INCLUDING CONSTRAINTS INCLUDING GENERATED)', partition);
        EXECUTE format('ALTER TABLE halfcore.prediction_log ATTACH PARTITION halfcore.%I FOR VALUES FROM (%L) TO (%L)',
            partition, day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00');
    END LOOP;
END $$;
