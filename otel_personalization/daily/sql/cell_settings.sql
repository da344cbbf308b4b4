-- Blend weights on record, and how many decisions had them.
SELECT
    cell, alpha, beta, gamma, profile_boost, mmr_lambda,
    CAST(sum(decisions) AS BIGINT) AS decisions
FROM cell_sums
WHERE coalesce(alpha, beta, gamma, profile_boost, mmr_lambda) IS NOT NULL
GROUP BY cell, alpha, beta, gamma, profile_boost, mmr_lambda
