-- The decisions of the window, each with its cell. Each has one: the join is an outer one since of such
-- a join the few cells are kept in memory, and never the many decisions.
SELECT c.cell, d.*
FROM counted d
LEFT JOIN cells c
    ON d.namespace = c.namespace AND d.surface = c.surface AND d.cohort = c.cohort
    AND d.device = c.device AND d.experiment = c.experiment AND d.variant = c.variant
