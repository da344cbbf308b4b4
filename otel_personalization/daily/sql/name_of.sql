-- A text as rows are told apart by it: one of more characters than the variable longest_name is `other`,
-- as in the live counters, and NUL, for which PostgreSQL has no place, is U+FFFD.
CREATE OR REPLACE TEMP MACRO name_of(value) AS CASE
    WHEN length(value) > getvariable('longest_name') THEN 'other'
    ELSE replace(value, chr(0), chr(65533))
END
