-- A text as rows are told apart by it: one that is too long is `other`, as in the live counters, and NUL,
-- for which PostgreSQL has no place, is U+FFFD.
CREATE OR REPLACE TEMP MACRO name_of(value, longest) AS
    CASE WHEN length(value) > longest THEN 'other' ELSE replace(value, chr(0), chr(65533)) END
