-- Impressions of the day's decisions, by groups of users, as in exposure.sql, by the item's place, and
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
        min(CASE
            WHEN d.only_counted THEN NULL
            WHEN array_contains(d.personalized_ids, d.item.item_id) THEN 1
            ELSE 0
        END) AS is_personalized,
        min(p.outcomes) AS outcomes,
        min(p.was_seen) AS was_seen,
        min(p.was_clicked) AS was_clicked
    FROM (
        SELECT
            decision_id,
            cell,
            ascii(substr(digest, 1, 1)) * 128 + ascii(substr(digest, 2, 1)) AS users,
            personalized_items > 0 AND {size}(personalized_ids) = 0 AS only_counted,
            personalized_ids,
            {items_and_places}
        FROM (
            SELECT
                decision_id,
                cell,
                md5(coalesce(user_hash, decision_id)) AS digest,
                personalized_items,
                personalized_ids,
                items
            FROM window_decisions
            WHERE day = DATE '{day}' AND decision_id IN (SELECT decision_id FROM outcome_pairs)
        ) AS digested
    ) AS d
    JOIN outcome_pairs p ON d.decision_id = p.decision_id AND d.item.item_id = p.item_id
    GROUP BY p.decision_id, p.item_id
) AS reported
GROUP BY cell, users, place, is_personalized
