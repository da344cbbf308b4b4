-- An instant in UTC, of RFC 3339 text; null where it names none.
CREATE OR REPLACE TEMP MACRO instant_of(value) AS make_timestamp(epoch_us(try_cast(
    CASE WHEN regexp_matches(value, '[0-9]([Zz]|[+-][0-9:]{2,5})$') AND length(value) > 19 THEN upper(value)
    ELSE upper(value) || 'Z' END AS TIMESTAMPTZ
)))
