-- The decisions of the window, each with its cell.
SELECT c.cell, d.*
FROM counted d
JOIN cells c
    ON d.namespace = c.namespace AND d.surface = c.surface AND d.cohort = c.cohort
    AND d.device = c.device AND d.experiment = c.experiment AND d.variant = c.variant
