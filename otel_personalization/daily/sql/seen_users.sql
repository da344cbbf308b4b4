-- Users who were seen in the days of history, by whom users of the day are new or returning.
SELECT DISTINCT namespace, user_hash
FROM stored
WHERE day BETWEEN DATE '{history_start}' AND DATE '{history_end}' AND user_hash IS NOT NULL
