-- The lists of the last decisions.
SELECT
    l.cell,
    l.user_order,
    l.user_rest,
    l.ts,
    coalesce(s.decision_id, '') AS decision_id,
    l.ordinal,
    s.items
FROM stored s
JOIN last_decisions l ON s.day = l.day AND s.ordinal = l.ordinal
