-- Of each cell the users whose lists are compared: those with the smallest digests. Whatever cells are
-- put together, the smallest of all are among these; the same every time, and from any part of the data.
SELECT cell, user_order, user_rest, last_list
FROM (
    SELECT *, row_number() OVER (PARTITION BY cell ORDER BY user_order, user_rest) AS place
    FROM cell_users
    WHERE last_list IS NOT NULL
) AS ordered
WHERE place <= {most_users}
