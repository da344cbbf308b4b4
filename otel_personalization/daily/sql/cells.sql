-- The finest cells: what decisions are told apart by, numbered. All else is rolled up from them.
SELECT
    CAST(row_number() OVER (
        ORDER BY namespace, surface, cohort, device, experiment, variant
    ) AS INT) AS cell,
    namespace, surface, cohort, device, experiment, variant
FROM (SELECT DISTINCT namespace, surface, cohort, device, experiment, variant FROM counted)
