-- The last list of each of those users in each cell; of one instant there may be several, of which the
-- greatest decision_id is last: whoever reads them looks at that anyway, when it puts cells together.
SELECT
    l.cell,
    l.user_order,
    l.user_rest,
    s.ts,
    coalesce(s.decision_id, '') AS decision_id,
    s.ordinal,
    s.items
FROM stored s
JOIN (
    SELECT p.day, p.ordinal, p.cell, p.user_order, p.user_rest
    FROM placed p
    JOIN compared_users u
        ON p.cell = u.cell AND p.user_order = u.user_order AND p.user_rest = u.user_rest
        AND p.list_ts = u.last_list
) AS l ON s.day = l.day AND s.ordinal = l.ordinal
