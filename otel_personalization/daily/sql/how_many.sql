-- How many flags of a list are true. Not by a filter of what has them: it would copy all that it keeps.
CREATE OR REPLACE TEMP MACRO how_many(flags) AS
    coalesce(len(list_filter(flags, lambda flag: flag)), 0)
