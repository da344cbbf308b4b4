-- Impressions of the day's decisions, by groups of users, by the item's place, and
-- by whether it was personalised, which is null where the trace only has the count. An item that was
-- served twice has its first place.
SELECT
    cell,
    users,
    place,
    is_personalized,
    CAST(sum(outcomes) AS BIGINT) AS outcomes,
    CAST(sum(was_seen) AS BIGINT) AS impressions,
    CAST(sum(was_seen * was_clicked) AS BIGINT) AS clicks,
    CAST(sum((1 - was_seen) * was_clicked) AS BIGINT) AS unseen_clicks
FROM (
    SELECT
        min(d.cell) AS cell,
        min(d.users) AS users,
        min(d.place) AS place,
        min(d.is_personalized) AS is_personalized,
        min(p.outcomes) AS outcomes,
        min(p.was_seen) AS was_seen,
        min(p.was_clicked) AS was_clicked
    FROM (
        SELECT
            ordinal,
            cell,
            users,
            place,
            item.item_id AS item_id,
            CASE
                WHEN only_counted THEN NULL
                WHEN array_contains(personalized_ids, item.item_id) THEN 1
                ELSE 0
            END AS is_personalized
        FROM (
            SELECT
                ordinal,
                cell,
                users,
                personalized_items > 0 AND {size}(personalized_ids) = 0 AS only_counted,
                personalized_ids,
                {items_and_places}
            FROM window_decisions
            WHERE day = DATE '{day}'
        ) AS exploded
    ) AS d
    JOIN outcome_pairs p ON d.ordinal = p.ordinal AND d.item_id = p.item_id
    GROUP BY p.ordinal, p.item_id
) AS reported
GROUP BY cell, users, place, is_personalized
