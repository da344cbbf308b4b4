-- A JSON integer of 0 to the largest that is believed; null if it is anything else.
CREATE OR REPLACE TEMP MACRO count_of(value, largest) AS CASE
    WHEN regexp_full_match(CAST(value AS VARCHAR), '-?[0-9]{1,18}')
        AND try_cast(CAST(value AS VARCHAR) AS BIGINT) BETWEEN 0 AND largest
        THEN try_cast(CAST(value AS VARCHAR) AS BIGINT)
END
