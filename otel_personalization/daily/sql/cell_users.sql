-- The users of each cell: whether they were there on the day, and when they last got a list in the
-- window.
SELECT
    cell,
    user_hash,
    max(CASE WHEN day = DATE '{day}' THEN 1 ELSE 0 END) AS was_there,
    max(CASE WHEN identified_items > 0 THEN ts END) AS last_list
FROM window_decisions
WHERE user_hash IS NOT NULL
GROUP BY cell, user_hash
