-- The last list of each of those users in each cell; of one instant there may be several, of which the
-- greatest decision_id is last: whoever reads them looks at that anyway, when it puts cells together.
SELECT
    d.cell, d.user_hash, u.user_order, d.ts, coalesce(d.decision_id, '') AS decision_id, d.ordinal,
    d.items
FROM window_decisions d
JOIN compared_users u ON d.cell = u.cell AND d.user_hash = u.user_hash AND d.ts = u.last_list
WHERE d.identified_items > 0
