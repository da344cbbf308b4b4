-- A JSON number; null if it is anything else, or none that is finite.
CREATE OR REPLACE TEMP MACRO number_of(value) AS CASE
    WHEN isfinite(try_cast(CAST(value AS VARCHAR) AS DOUBLE))
        THEN try_cast(CAST(value AS VARCHAR) AS DOUBLE)
END
