-- How many users share a set of cells. Users of any union of cells are counted from it exactly, for a
-- user in several cells is one user: `there` on the day, `listed` with a list in the window.
SELECT there, listed, count(*) AS users
FROM (
    SELECT
        {sorted}({list}(u.cell) FILTER (WHERE u.was_there = 1)) AS there,
        {sorted}({list}(u.cell) FILTER (WHERE u.last_list IS NOT NULL)) AS listed
    FROM cell_users u
    JOIN cells c ON u.cell = c.cell
    GROUP BY c.namespace, u.user_order, u.user_rest
) AS sets
GROUP BY there, listed
