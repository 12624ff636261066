-- Everybody may call a new function, and this one makes tables in the owner's name: only whoever logs is granted it.
REVOKE ALL ON FUNCTION halfcore.prediction_log_ensure_days(date, date) FROM PUBLIC;
