-- A JSON text as labels are counted: trimmed and lower-cased; null if it is blank, or no text.
CREATE OR REPLACE TEMP MACRO label_of(value, space) AS lower(text_of(value, space))
