-- Text without the white space around it; null if nothing is left. To trim takes long, and few texts
-- begin or end with anything but a visible character of ASCII.
CREATE OR REPLACE TEMP MACRO trimmed(value, space) AS CASE
    WHEN value BETWEEN '!' AND '~' AND value[-1] BETWEEN '!' AND '~' THEN value
    ELSE nullif(trim(value, space), '')
END
