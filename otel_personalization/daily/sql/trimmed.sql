-- Text without the white space around it; null if nothing is left. To trim takes long, and few texts
-- begin or end with anything but a visible character.
CREATE OR REPLACE TEMP MACRO trimmed(value, space) AS
    nullif(CASE WHEN regexp_matches(value, '^[^!-~]|[^!-~]$') THEN trim(value, space) ELSE value END, '')
