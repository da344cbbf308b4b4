-- A JSON text, trimmed; null if it is blank, or no text. As a rule it has visible ASCII characters
-- alone and no escape, and need not be parsed: that takes half of the time.
CREATE OR REPLACE TEMP MACRO text_of(value, space) AS CASE
    WHEN regexp_full_match(CAST(value AS VARCHAR), '"[!#-\[\]-~]+"')
        THEN substring(CAST(value AS VARCHAR), 2, length(CAST(value AS VARCHAR)) - 2)
    WHEN starts_with(CAST(value AS VARCHAR), '"') THEN trimmed(value ->> '$', space)
END
