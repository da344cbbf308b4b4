-- The same of rows of a Parquet file, whatever the types of their columns. DuckDB only.
--
-- In:  rows(file_row_number, decision_id, item_id, type).
SELECT
    file_row_number AS ordinal,
    CAST(decision_id AS VARCHAR) AS decision_id,
    CAST(item_id AS VARCHAR) AS item_id,
    lower(trim(CAST(type AS VARCHAR))) AS type,
    false AS is_no_json
FROM rows
