-- How often each item was served, and each brand and category to each group of users. Users are put
-- into groups by hash, some 256; a decision without a user is one of its own. Brand and category are
-- counted together: as a rule one goes with the other, and to count takes long.
SELECT
    cell, users, item_id, brand, category,
    CAST(grouping(item_id) AS INT) AS no_item,
    count(*) AS served
FROM (
    SELECT cell, users, item.item_id AS item_id, item.brand AS brand, item.category AS category
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
) AS served_items
GROUP BY GROUPING SETS ((cell, item_id), (cell, users, brand, category))
