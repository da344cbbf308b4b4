-- What adds up, by cell, by the rules that told its decisions apart (see counted.sql), and by decisions of
-- one share: whole numbers only, which add up to the same in any order.
SELECT
    cell,
    CASE
        WHEN cohort IS NOT NULL THEN 'extras'
        WHEN user_hash IS NULL OR NOT {has_history} THEN 'unknown'
        ELSE 'history'
    END AS cohort_rule,
    CASE
        WHEN device IS NOT NULL THEN 'extras'
        WHEN bucket_device IS NOT NULL THEN 'bucket_key'
        ELSE 'unknown'
    END AS device_rule,
    served_items,
    personalized_items,
    count(*) AS decisions,
    count(user_hash) AS decisions_with_user,
    CAST(sum(reason_items) AS BIGINT) AS reason_items,
    CAST(sum(reason_requested_items) AS BIGINT) AS reason_requested_items,
    CAST(sum(cold_start_items) AS BIGINT) AS cold_start_items,
    CAST(sum(mmr_picks) AS BIGINT) AS mmr_picks,
    CAST(sum(brand_cap_hits) AS BIGINT) AS brand_cap_hits,
    CAST(sum(category_cap_hits) AS BIGINT) AS category_cap_hits
FROM window_decisions
WHERE day = DATE '{day}'
GROUP BY cell, cohort_rule, device_rule, served_items, personalized_items
