-- Blend weights on record, and how many decisions had them.
SELECT cell, alpha, beta, gamma, profile_boost, mmr_lambda, count(*) AS decisions
FROM window_decisions
WHERE day = DATE '{day}'
    AND coalesce(alpha, beta, gamma, profile_boost, mmr_lambda) IS NOT NULL
GROUP BY cell, alpha, beta, gamma, profile_boost, mmr_lambda
