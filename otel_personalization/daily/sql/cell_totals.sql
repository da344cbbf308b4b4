-- What adds up, by cell and by the rules that told its decisions apart.
SELECT
    cell,
    cohort_rule,
    device_rule,
    count(*) AS decisions,
    CAST(sum(CASE WHEN served_items = 0 THEN 1 ELSE 0 END) AS BIGINT) AS empty_decisions,
    count(user_hash) AS decisions_with_user,
    CAST(sum(served_items) AS BIGINT) AS served_items,
    CAST(sum(served_items * served_items) AS BIGINT) AS served_items_squared,
    CAST(sum(personalized_items) AS BIGINT) AS personalized_items,
    CAST(sum(reason_items) AS BIGINT) AS reason_items,
    CAST(sum(reason_requested_items) AS BIGINT) AS reason_requested_items,
    CAST(sum(cold_start_items) AS BIGINT) AS cold_start_items,
    coalesce(sum(CASE WHEN served_items > 0
        THEN CAST(personalized_items AS DOUBLE) / CAST(served_items AS DOUBLE) END),
        CAST(0 AS DOUBLE)) AS personalized_rates,
    CAST(sum(mmr_picks) AS BIGINT) AS mmr_picks,
    CAST(sum(brand_cap_hits) AS BIGINT) AS brand_cap_hits,
    CAST(sum(category_cap_hits) AS BIGINT) AS category_cap_hits
FROM window_decisions
WHERE day = DATE '{day}'
GROUP BY cell, cohort_rule, device_rule
