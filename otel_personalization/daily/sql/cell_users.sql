-- The users of each cell: whether they were there on the day, and when they last got a list in the
-- window.
SELECT
    cell,
    user_order,
    user_rest,
    max(CASE WHEN day = DATE '{day}' THEN 1 ELSE 0 END) AS was_there,
    max(list_ts) AS last_list
FROM placed
WHERE user_order IS NOT NULL
GROUP BY cell, user_order, user_rest
