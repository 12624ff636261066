"""What was predicted, row by row, and joined with what was true: answers of a real server in every
protocol."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bundles import write_bundle
from support.client import wait_until
from support.postgres import Postgres
from support.serving import Server, request, serving

ROWS = "[[1,2,3,4],[4,3,2,1]]"
TENSOR = '{"inputs":[{"name":"input","shape":[2,4],"datatype":"FP64","data":[1,2,3,4,4,3,2,1]}]}'
BODIES = {
    "/predict": (f'{{"features":{ROWS}}}', 2),
    "/models/numbers/predict": ('{"features":[1,2,3,4]}', 1),
    "/invocations": (f'{{"instances":{ROWS}}}', 2),
    "/v1/models/numbers:predict": (f'{{"instances":{ROWS}}}', 2),
    "/v2/models/numbers/infer": (TENSOR, 2),
}


@pytest.fixture
def server(tmp_path: Path, postgres: Postgres, database: str) -> Iterator[Server]:
    """Logs to the database."""
    write_bundle(tmp_path / "bundles", "numbers", task="regression")
    with serving(
        tmp_path / "bundles",
        database_url=postgres.dsn(database),
        prediction_log=True,
        prediction_log_spool=tmp_path / "spool",
    ) as server:
        yield server


def test_every_protocols_answer_is_one_row_for_each_prediction(
    server: Server, postgres: Postgres, database: str
) -> None:
    """The sum of each row, which is what the model predicts."""
    for path, (body, _) in BODIES.items():
        sent = request(path, body.encode(), headers={"x-request-id": path})
        assert server.send(sent).startswith(b"HTTP/1.1 200 ")
    wait_until(
        lambda: postgres.sql("SELECT count(*) FROM halfcore.prediction_log", database) == [("5",)]
    )

    found = postgres.sql(
        "SELECT request_id, answer_row, halfcore.as_number(predicted) FROM halfcore.predicted_rows",
        database,
    )

    expected = [
        (path, str(row)) for path, (_, rows) in BODIES.items() for row in range(1, rows + 1)
    ]
    assert sorted(row[:2] for row in found) == sorted(expected)
    assert {row[2] for row in found} == {"10"}


OUTCOMES = """
INSERT INTO halfcore.prediction_log (at, writer, row_number, row_count, latency_s, request_id,
    model, version, role, answer)
VALUES ('2026-03-01 10:00+00', gen_random_uuid(), 0, 1, 0, 'a', 'm', '1', 'champion',
        '{"prediction":"yes"}'),
       ('2026-03-01 11:00+00', gen_random_uuid(), 0, 3, 0, 'b', 'm', '1', 'champion',
        '{"prediction":["no","yes","yes"]}'),
       ('2026-03-01 12:00+00', gen_random_uuid(), 0, 2, 0, 'c', 'n', '7', 'champion',
        '{"predictions":[1.5, -2e1]}'),
       ('2026-03-01 13:00+00', gen_random_uuid(), 0, 1, 0, 'd', 'n', '7', 'champion',
        '{"outputs":[{"name":"label","shape":[1]}]}');
INSERT INTO halfcore.feedback (request_id, answer_row, actual)
VALUES ('a', 1, 'yes'), ('b', 1, 'no'), ('b', 3, 'no'), ('c', 1, '1.50'), ('c', 2, '-18'),
       ('unknown', 1, 'yes');
"""

# One writer, ten rows a day; the numbers 22 and 23, of the third day, have no row.
FOUR_DAYS = """
INSERT INTO halfcore.prediction_log (at, writer, row_number, row_count, latency_s, request_id,
    model, version, role, answer)
SELECT '2026-03-01 12:00+00'::timestamptz + number / 10 * interval '1 day',
       '00000000-0000-0000-0000-000000000001', number, 1, 0, 'a', 'm', '1', 'champion', '{}'
FROM generate_series(0, 39) AS number WHERE number NOT IN (22, 23)
"""


def test_quality_is_the_share_of_right_labels_and_the_mean_error(
    postgres: Postgres, database: str
) -> None:
    """Of the rows that have feedback; numbers are compared as numbers, and binary answers have no
    rows."""
    postgres.sql("SELECT halfcore.prediction_log_ensure_days('2026-03-01', '2026-03-01')", database)
    postgres.sql(OUTCOMES, database)

    assert postgres.sql("SELECT * FROM halfcore.model_quality ORDER BY model", database) == [
        ("2026-03-01", "m", "1", "champion", "3", "0.6666666666666666", ""),
        ("2026-03-01", "n", "7", "champion", "2", "0.5", "1"),
    ]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_pages_days_are_days_in_utc(postgres: Postgres, database: str, zone: str) -> None:
    """Its query drops what is older than 30 of them, in whatever time zone the session is: one of
    these two always has another day than UTC."""
    page = (Path(__file__).parents[3] / "docs/prediction-log.md").read_text()
    (drop,) = re.findall(r"^SELECT halfcore.prediction_log_drop_before.*;$", page, re.M)
    today = "(now() AT TIME ZONE 'UTC')::date"
    postgres.sql(
        f"SELECT halfcore.prediction_log_ensure_days({today} - 32, {today} - 29)", database
    )
    assert postgres.sql(f"SET timezone = '{zone}'; {drop}", database) == [("2",)]
    assert "current_date" not in "".join(re.findall(r"```sql\n(.*?)```", page, re.DOTALL))


def test_rows_of_days_that_were_dropped_are_not_missing(postgres: Postgres, database: str) -> None:
    """The page's query counts the gap among the rows that are kept, and nothing of the days before
    it."""
    page = (Path(__file__).parents[3] / "docs/prediction-log.md").read_text()
    query = page.partition("Is anything missing?")[2].partition("```sql\n")[2].partition("```")[0]
    postgres.sql("SELECT halfcore.prediction_log_ensure_days('2026-03-01', '2026-03-04')", database)
    postgres.sql(FOUR_DAYS, database)
    assert [row[1] for row in postgres.sql(query, database)] == ["2"]

    postgres.sql("SELECT halfcore.prediction_log_drop_before('2026-03-02')", database)
    assert [row[1] for row in postgres.sql(query, database)] == ["2"]

    postgres.sql("SELECT halfcore.prediction_log_drop_before('2026-03-04')", database)
    assert postgres.sql(query, database) == []


def test_the_page_says_how_to_read_past_a_text_that_postgresql_cannot_read(
    postgres: Postgres, database: str
) -> None:
    """Of one row with a zero character and one without, the second is found."""
    page = (Path(__file__).parents[3] / "docs/prediction-log.md").read_text()
    (readable,) = re.findall(r"`(CASE WHEN .*? END)`", page)
    logged = r"""(VALUES ('{"features":["a\u0000b"]}'::json), ('{"features":["a"]}'), (null))"""
    for inputs in (readable, f"({readable})::jsonb"):
        query = f"SELECT count({inputs}->'features'->>0) FROM {logged} AS log (inputs)"  # noqa: S608
        assert postgres.sql(query, database) == [("1",)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", "1"),
        (" -2.50 ", "-2.5"),
        (".5e2", "50"),
        ("1.", "1"),
        ("1e999", ""),
        ("9" * 400, ""),
        ("", ""),
    ]
    + [(text, "") for text in ("NaN", "one", "1,5", "0x10", "1 2", "--1")],
)
def test_what_counts_as_a_number(postgres: Postgres, database: str, text: str, number: str) -> None:
    """Nothing that PostgreSQL cannot convert."""
    assert postgres.sql(f"SELECT halfcore.as_number('{text}')", database) == [(number,)]
