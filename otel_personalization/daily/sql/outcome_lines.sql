-- What each line of JSON says of an outcome. Ids are text, as in snapshots; one that is an object or
-- a list is none. DuckDB only: outcomes are read by it, whatever counts them.
--
-- In:  lines(line, ordinal).
-- Out: a row for each line.
SELECT
    ordinal,
    CASE
        WHEN outcome.decision_id[1] NOT IN ('{', '[') THEN outcome.decision_id
        WHEN outcome.decision_id IS NULL THEN NULL
        WHEN json_type(line, '$.decision_id') NOT IN ('OBJECT', 'ARRAY') THEN outcome.decision_id
    END AS decision_id,
    CASE
        WHEN outcome.item_id[1] NOT IN ('{', '[') THEN outcome.item_id
        WHEN outcome.item_id IS NULL THEN NULL
        WHEN json_type(line, '$.item_id') NOT IN ('OBJECT', 'ARRAY') THEN outcome.item_id
    END AS item_id,
    lower(trim(outcome.type)) AS type,
    outcome IS NULL AND NOT json_valid(line) AS is_no_json
FROM (
    SELECT
        ordinal,
        line,
        try(json_transform(
            line, '{"decision_id": "VARCHAR", "item_id": "VARCHAR", "type": "VARCHAR"}'
        )) AS outcome
    FROM lines
)
