-- The decisions that gave each of those users the last list in each cell; of one instant there may be
-- several, of which the greatest decision_id is last: whoever reads their lists looks at that anyway,
-- when it puts cells together.
SELECT p.day, p.ordinal, p.cell, p.user_order, p.user_rest, p.list_ts AS ts
FROM placed p
JOIN compared_users u
    ON p.cell = u.cell AND p.user_order = u.user_order AND p.user_rest = u.user_rest
    AND p.list_ts = u.last_list
