-- The sources that took part in each decision: in the order of time, since what is wanted of them is
-- the longest run without a candidate.
SELECT cell, sources
FROM window_decisions
WHERE day = DATE '{day}'
ORDER BY ts, ordinal
