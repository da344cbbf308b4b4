-- How many users share a set of cells. Users of any union of cells are counted from it exactly, for a
-- user in several cells is one user. Of each cell the set has 4 x its number, plus 2 where they were
-- there on the day, plus 1 where they had a list in the window.
--
-- Sets are told apart by 64 bits of a hash, and spelled out for one of their users alone: to have the
-- list of each user takes twice as long. That two of 20,000 sets share a hash happens in one night of
-- 10^11.
WITH marked AS (
    SELECT
        c.namespace,
        u.user_order,
        u.user_rest,
        4 * u.cell + 2 * u.was_there + CASE WHEN u.last_list IS NOT NULL THEN 1 ELSE 0 END AS mark
    FROM cell_users u
    JOIN cells c ON u.cell = c.cell
),
sets AS (
    SELECT namespace, user_order, user_rest, bit_xor({hash}(mark)) AS shared
    FROM marked
    GROUP BY namespace, user_order, user_rest
),
examples AS (
    SELECT
        namespace,
        min(user_order) AS user_order,
        min_by(user_rest, user_order) AS user_rest,
        count(*) AS users
    FROM sets
    GROUP BY namespace, shared
)
SELECT {sorted}({list}(m.mark)) AS marks, max(e.users) AS users
FROM marked m
JOIN examples e
    ON m.namespace = e.namespace AND m.user_order = e.user_order AND m.user_rest = e.user_rest
GROUP BY e.namespace, e.user_order, e.user_rest
