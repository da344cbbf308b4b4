-- The decisions of the window, each once, with what they are told apart by.
SELECT
    s.day,
    s.ordinal,
    s.decision_id,
    s.namespace,
    CASE WHEN s.surface = 'all' THEN 'all_' ELSE s.surface END AS surface,
    s.user_hash,
    CASE
        WHEN s.cohort = 'all' THEN 'all_'
        WHEN s.cohort IS NOT NULL THEN s.cohort
        WHEN s.user_hash IS NULL OR NOT {has_history} THEN 'unknown'
        WHEN u.user_hash IS NOT NULL THEN 'returning'
        ELSE 'new'
    END AS cohort,
    CASE
        WHEN coalesce(s.device, s.bucket_device) = 'all' THEN 'all_'
        ELSE coalesce(s.device, s.bucket_device, 'unknown')
    END AS device,
    CASE WHEN s.experiment IN ('all', 'none') THEN concat(s.experiment, '_')
        ELSE coalesce(s.experiment, 'none') END AS experiment,
    CASE WHEN s.variant IN ('all', 'none') THEN concat(s.variant, '_')
        ELSE coalesce(s.variant, 'none') END AS variant,
    CASE WHEN s.identified_items > 0 THEN s.ts END AS list_ts
FROM stored s
LEFT JOIN seen_users u ON s.namespace = u.namespace AND s.user_hash = u.user_hash
LEFT JOIN repeated r ON s.day = r.day AND s.ordinal = r.ordinal
WHERE s.day BETWEEN DATE '{window_start}' AND DATE '{day}'
    AND r.ordinal IS NULL
