-- How many users share a set of cells. Users of any union of cells are counted from it exactly, for a
-- user in several cells is one user. Of each cell the set has 4 x its number, plus 2 where they were
-- there on the day, plus 1 where they had a list in the window: one list takes half as long as two.
SELECT marks, count(*) AS users
FROM (
    SELECT
        {sorted}({list}(
            4 * u.cell + 2 * u.was_there + CASE WHEN u.last_list IS NOT NULL THEN 1 ELSE 0 END
        )) AS marks
    FROM cell_users u
    JOIN cells c ON u.cell = c.cell
    GROUP BY c.namespace, u.user_order, u.user_rest
) AS sets
GROUP BY marks
