-- How often each item was served.
SELECT cell, item.item_id AS item_id, count(*) AS served
FROM (
    SELECT cell, {explode}(items) AS item
    FROM window_decisions
    WHERE day = DATE '{day}'
) AS exploded
WHERE item.item_id IS NOT NULL
GROUP BY cell, item.item_id
