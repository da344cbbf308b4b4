-- Where each decision of the window belongs: its cell and its user, as numbers. It is made once, and
-- short; what is counted of a decision is read beside it, by day and ordinal.
--
-- A user is 120 bits of a digest of the hash, by which few users are chosen where there are many; and is
-- in one of {user_groups} groups. A decision without a user is in the group of its own digest.
SELECT
    day,
    ordinal,
    cell,
    list_ts,
    CASE WHEN user_hash IS NOT NULL THEN user_order END AS user_order,
    CASE WHEN user_hash IS NOT NULL THEN user_rest END AS user_rest,
    CAST(user_rest % {user_groups} AS INT) AS users
FROM (
    SELECT *, {digits_1_to_15} AS user_order, {digits_16_to_30} AS user_rest
    FROM (
        SELECT
            c.cell,
            d.*,
            {digest}(concat(
                'personalization:',
                coalesce(d.user_hash, d.decision_id, CAST(d.ordinal AS {text}))
            )) AS digest
        FROM counted d
        LEFT JOIN cells c
            ON d.namespace = c.namespace AND d.surface = c.surface AND d.cohort = c.cohort
            AND d.device = c.device AND d.experiment = c.experiment AND d.variant = c.variant
    ) AS digested
) AS numbered
