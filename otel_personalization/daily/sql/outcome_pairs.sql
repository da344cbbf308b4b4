-- What was reported of each item of each decision, of whatever day.
SELECT
    decision_id,
    item_id,
    count(*) AS outcomes,
    max(CASE WHEN type = 'impression' THEN 1 ELSE 0 END) AS was_seen,
    max(CASE WHEN type = 'click' THEN 1 ELSE 0 END) AS was_clicked
FROM outcomes
GROUP BY decision_id, item_id
