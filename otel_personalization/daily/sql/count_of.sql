-- A JSON integer of 0 to the largest that is believed, which 3.0 and 3e0 are not; null if it is anything
-- else.
CREATE OR REPLACE TEMP MACRO count_of(value, largest) AS CASE
    WHEN CAST(try_cast(CAST(value AS VARCHAR) AS BIGINT) AS VARCHAR) = CAST(value AS VARCHAR)
        AND try_cast(CAST(value AS VARCHAR) AS BIGINT) BETWEEN 0 AND largest
        THEN try_cast(CAST(value AS VARCHAR) AS BIGINT)
END
