-- How many outcomes are of decisions of the day.
SELECT coalesce(CAST(sum(outcomes) AS BIGINT), 0) AS outcomes
FROM outcome_pairs
WHERE decision_id IN (
    SELECT decision_id FROM window_decisions WHERE day = DATE '{day}' AND decision_id IS NOT NULL
)
