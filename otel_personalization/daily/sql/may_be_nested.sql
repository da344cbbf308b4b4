-- Whether a text may be that of a JSON object or list, which are no ids.
CREATE OR REPLACE TEMP MACRO may_be_nested(value) AS
    starts_with(CAST(value AS VARCHAR), '{') OR starts_with(CAST(value AS VARCHAR), '[')
