-- The feature catalogue: what the data team says of a model's columns. docs/catalogue.md tells how it is used.
-- A value that is NULL says nothing, and the model's own holds; so does every column without a row.
CREATE TABLE halfcore.feature_catalogue (
    model text NOT NULL CHECK (model <> ''),
    column_name text NOT NULL CHECK (column_name <> ''),
    position integer CHECK (position >= 1),
    kind text CHECK (kind IN ('number', 'integer', 'boolean', 'category')),
    default_value jsonb CHECK (jsonb_typeof(default_value) NOT IN ('array', 'object')),
    minimum double precision CHECK (minimum > '-infinity' AND minimum < 'infinity'),
    maximum double precision CHECK (maximum > '-infinity' AND maximum < 'infinity'),
    categories jsonb CHECK (jsonb_typeof(categories) = 'array' AND categories <> '[]'),
    enabled boolean NOT NULL DEFAULT true,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model, column_name),
    UNIQUE (model, position) DEFERRABLE INITIALLY DEFERRED,
    CHECK (minimum <= maximum)
);

COMMENT ON TABLE halfcore.feature_catalogue IS 'What a model''s columns may hold; the server applies a change within seconds of its commit';
COMMENT ON COLUMN halfcore.feature_catalogue.model IS 'registered name of the model';
COMMENT ON COLUMN halfcore.feature_catalogue.column_name IS 'a column of the model, as its clients write it';
COMMENT ON COLUMN halfcore.feature_catalogue.position IS 'place in the features vector, from 1; checked against the model''s own';
COMMENT ON COLUMN halfcore.feature_catalogue.kind IS 'checked against the model''s own';
COMMENT ON COLUMN halfcore.feature_catalogue.default_value IS 'taken where a named record lacks the column; JSON null fills a nullable one with null';
COMMENT ON COLUMN halfcore.feature_catalogue.minimum IS 'least value that is answered; beyond it 422';
COMMENT ON COLUMN halfcore.feature_catalogue.maximum IS 'largest value that is answered; beyond it 422';
COMMENT ON COLUMN halfcore.feature_catalogue.categories IS 'those of the model''s categories that are answered; others 422';
COMMENT ON COLUMN halfcore.feature_catalogue.enabled IS 'false: as if the row were not there';

-- Says that something changed, not what: the server reads the table again, and does so without being told as well.
CREATE FUNCTION halfcore.feature_catalogue_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('halfcore_feature_catalogue', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON halfcore.feature_catalogue
    FOR EACH STATEMENT EXECUTE FUNCTION halfcore.feature_catalogue_changed();

CREATE FUNCTION halfcore.feature_catalogue_touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER touched BEFORE UPDATE ON halfcore.feature_catalogue
    FOR EACH ROW EXECUTE FUNCTION halfcore.feature_catalogue_touched();
