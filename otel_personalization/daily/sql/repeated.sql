-- Deliveries of the window that do not count: all of a decision but the first.
-- They are looked for by a hash, which takes two thirds of the time; ids that share one without being
-- the same are told apart afterwards.
WITH twice AS (
    SELECT {hash}(day, decision_id) AS shared
    FROM stored
    WHERE day BETWEEN DATE '{window_start}' AND DATE '{day}' AND decision_id IS NOT NULL
    GROUP BY {hash}(day, decision_id)
    HAVING count(*) > 1
),
numbered AS (
    SELECT
        s.day,
        s.ordinal,
        row_number() OVER (PARTITION BY s.day, s.decision_id ORDER BY s.ts, s.ordinal) AS delivery
    FROM stored s
    JOIN twice t ON {hash}(s.day, s.decision_id) = t.shared
    WHERE s.day BETWEEN DATE '{window_start}' AND DATE '{day}' AND s.decision_id IS NOT NULL
)
SELECT day, ordinal
FROM numbered
WHERE delivery > 1
