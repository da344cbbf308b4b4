-- What adds up, whatever the blend weights.
SELECT
    cell, cohort_rule, device_rule, served_items, personalized_items,
    CAST(sum(decisions) AS BIGINT) AS decisions,
    CAST(sum(decisions_with_user) AS BIGINT) AS decisions_with_user,
    CAST(sum(reason_items) AS BIGINT) AS reason_items,
    CAST(sum(reason_requested_items) AS BIGINT) AS reason_requested_items,
    CAST(sum(cold_start_items) AS BIGINT) AS cold_start_items,
    CAST(sum(mmr_picks) AS BIGINT) AS mmr_picks,
    CAST(sum(brand_cap_hits) AS BIGINT) AS brand_cap_hits,
    CAST(sum(category_cap_hits) AS BIGINT) AS category_cap_hits
FROM cell_sums
GROUP BY cell, cohort_rule, device_rule, served_items, personalized_items
