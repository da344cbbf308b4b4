-- The last list of each of those users in each cell. Of one instant the greatest decision_id is last.
SELECT cell, user_hash, user_order, ts, decision_id, ordinal, items
FROM (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY cell, user_hash ORDER BY decision_id DESC, ordinal DESC
        ) AS place
    FROM (
        SELECT
            d.cell, d.user_hash, u.user_order, d.ts, coalesce(d.decision_id, '') AS decision_id,
            d.ordinal, d.items
        FROM window_decisions d
        JOIN compared_users u
            ON d.cell = u.cell AND d.user_hash = u.user_hash AND d.ts = u.last_list
        WHERE d.identified_items > 0
    ) AS last
) AS placed
WHERE place = 1
