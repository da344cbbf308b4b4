-- How often each brand and category was served to each group of users. Brand and category are counted
-- together: as a rule one goes with the other, and to count takes long.
SELECT cell, users, item.brand AS brand, item.category AS category, count(*) AS served
FROM (
    SELECT cell, users, {explode}(items) AS item
    FROM window_decisions
    WHERE day = DATE '{day}'
) AS exploded
WHERE item.brand IS NOT NULL OR item.category IS NOT NULL
GROUP BY cell, users, item.brand, item.category
