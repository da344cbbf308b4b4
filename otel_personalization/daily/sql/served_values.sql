-- How often each brand and category was served to each group of users. Users are put into groups by
-- hash, some 256; a decision without a user is one of its own. Brand and category are counted
-- together: as a rule one goes with the other, and to count takes long.
SELECT cell, users, item.brand AS brand, item.category AS category, count(*) AS served
FROM (
    SELECT
        cell,
        ascii(substr(digest, 1, 1)) * 128 + ascii(substr(digest, 2, 1)) AS users,
        {explode}(items) AS item
    FROM (
        SELECT
            cell,
            md5(coalesce(user_hash, decision_id, CAST(ordinal AS {text}))) AS digest,
            items
        FROM window_decisions
        WHERE day = DATE '{day}'
    ) AS digested
) AS exploded
WHERE item.brand IS NOT NULL OR item.category IS NOT NULL
GROUP BY cell, users, item.brand, item.category
