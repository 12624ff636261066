-- The trace that a request belongs to: the id in its `traceparent` header (W3C Trace Context), 32 hexadecimal digits; null if it had none.
ALTER TABLE halfcore.prediction_log ADD COLUMN trace_id text;
-- Partial: a row without a trace costs nothing.
CREATE INDEX prediction_log_trace_id ON halfcore.prediction_log (trace_id) WHERE trace_id IS NOT NULL;
