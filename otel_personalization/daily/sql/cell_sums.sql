-- What adds up, by everything that it is told apart by later on, so that decisions are read once for it:
-- by cell, by the rules that told its decisions apart (see counted.sql), by decisions of one share, and by
-- blend weights. Whole numbers only, which add up to the same in any order.
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
    alpha, beta, gamma, profile_boost, mmr_lambda,
    count(*) AS decisions,
    count(user_hash) AS decisions_with_user,
    sum(reason_items) AS reason_items,
    sum(reason_requested_items) AS reason_requested_items,
    sum(cold_start_items) AS cold_start_items,
    sum(mmr_picks) AS mmr_picks,
    sum(brand_cap_hits) AS brand_cap_hits,
    sum(category_cap_hits) AS category_cap_hits
FROM window_decisions
WHERE day = DATE '{day}'
GROUP BY
    cell, cohort_rule, device_rule, served_items, personalized_items,
    alpha, beta, gamma, profile_boost, mmr_lambda
