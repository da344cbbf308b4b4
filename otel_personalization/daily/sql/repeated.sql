-- Decisions of the window that were delivered more than once, and the delivery that counts: the first.
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
        s.decision_id,
        s.ordinal,
        row_number() OVER (PARTITION BY s.day, s.decision_id ORDER BY s.ts, s.ordinal) AS delivery,
        count(*) OVER (PARTITION BY s.day, s.decision_id) AS deliveries
    FROM stored s
    JOIN twice t ON {hash}(s.day, s.decision_id) = t.shared
    WHERE s.day BETWEEN DATE '{window_start}' AND DATE '{day}' AND s.decision_id IS NOT NULL
)
SELECT day, decision_id, ordinal AS counted, deliveries - 1 AS further_deliveries
FROM numbered
WHERE delivery = 1 AND deliveries > 1
