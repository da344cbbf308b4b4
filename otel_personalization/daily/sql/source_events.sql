-- Each time a source took part in a decision: in the order of time, since what is wanted of it is the
-- longest run without a candidate.
SELECT ts, ordinal, namespace, surface, source.source AS source, source.candidates AS candidates
FROM (
    SELECT ts, ordinal, namespace, surface, {explode}(sources) AS source
    FROM window_decisions
    WHERE day = DATE '{day}'
) AS exploded
ORDER BY ts, ordinal
