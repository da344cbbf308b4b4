-- Of each cell the users whose lists are compared: those with the smallest hashes. Whatever cells are
-- put together, the smallest of all are among these; the same every time, and from any part of the data.
SELECT cell, user_hash, last_list, user_order
FROM (
    SELECT *, row_number() OVER (PARTITION BY cell ORDER BY user_order, user_hash) AS place
    FROM (
        SELECT *, md5(concat('personalization:', user_hash)) AS user_order
        FROM cell_users
        WHERE last_list IS NOT NULL
    ) AS hashed
) AS ordered
WHERE place <= {most_users}
