-- A JSON text, trimmed; null if it is blank, or no text.
CREATE OR REPLACE TEMP MACRO text_of(value, space) AS
    trimmed(CASE WHEN starts_with(CAST(value AS VARCHAR), '"') THEN value ->> '$' END, space)
