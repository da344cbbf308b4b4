-- What was reported of each item of each decision of the day, which is known by its ordinal from here
-- on: outcomes can be many, and its id is long.
SELECT
    d.ordinal,
    o.item_id,
    count(*) AS outcomes,
    max(CASE WHEN o.type = 'impression' THEN 1 ELSE 0 END) AS was_seen,
    max(CASE WHEN o.type = 'click' THEN 1 ELSE 0 END) AS was_clicked
FROM outcomes o
JOIN (
    SELECT decision_id, ordinal FROM window_decisions WHERE day = DATE '{day}'
) AS d ON o.decision_id = d.decision_id
GROUP BY d.ordinal, o.item_id
