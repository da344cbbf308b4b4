-- How many outcomes are of decisions of the day.
SELECT coalesce(CAST(sum(outcomes) AS BIGINT), 0) AS outcomes FROM outcome_pairs
