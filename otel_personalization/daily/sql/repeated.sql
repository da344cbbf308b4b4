-- Decisions of the window that were delivered more than once, and the delivery that counts: the first.
WITH twice AS (
    SELECT day, decision_id
    FROM stored
    WHERE day BETWEEN DATE '{window_start}' AND DATE '{day}' AND decision_id IS NOT NULL
    GROUP BY day, decision_id
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
    JOIN twice t ON s.day = t.day AND s.decision_id = t.decision_id
)
SELECT day, decision_id, ordinal AS counted, deliveries - 1 AS further_deliveries
FROM numbered
WHERE delivery = 1
