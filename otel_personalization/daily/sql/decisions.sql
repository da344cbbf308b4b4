-- What each line of JSON says of a decision, by the definitions of otel_personalization/trace.py; or,
-- in `problem`, why it says nothing. DuckDB only: snapshots are made by it, whatever reads them.
--
-- In:  lines(line, ordinal).
--      The variable shape has the parts of a trace that are read, and their types; what is of
--      another type is null. Texts, flags and counts are JSON, which tells 1 from "1"; ids are text.
--      space has the white space to trim, stages the keys of candidate_sources that are no sources,
--      most_candidates the largest count that is believed, trace_fields those of which a trace has
--      one at least, longest_name the characters of a name.
-- Out: a row for each line.
WITH parsed AS (
    SELECT ordinal, line, try(json_transform(line, getvariable('shape'))) AS trace
    FROM lines
),
-- Most decisions are plain: a list of objects, each with an id. The others are read once more, since a
-- type cannot tell an object's text from an id, nor null from a list that is none.
typed AS (
    SELECT
        *,
        trimmed(trace.ts, getvariable('space')) AS ts_text,
        -- For the CASE below, which would copy the whole trace from branch to branch.
        trace IS NULL AS is_unread,
        trace.final_items IS NOT NULL AS has_items,
        how_many(list_transform(
            trace.final_items,
            lambda item: item.item_id IS NULL OR may_be_nested(item.item_id)
        )) > 0 AS has_odd_items
    FROM parsed
),
judged AS (
    SELECT
        ordinal,
        trace,
        trace.extras AS extras,
        trace.bandit AS bandit,
        trace.extras.include_reasons IS DISTINCT FROM 'false' AS reasons_surfaced,
        -- Without an offset it is UTC.
        CASE
            WHEN regexp_full_match(
                ts_text,
                '[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?'
                || '([Zz]|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)?'
            ) THEN instant_of(ts_text)
        END AS instant,
        CASE
            WHEN is_unread AND NOT json_valid(line) THEN 'no_json'
            WHEN has_items AND NOT has_odd_items THEN NULL
            -- As an empty list is mostly written; the line is looked through once, not three times.
            WHEN NOT has_items AND json_type(line, '$.final_items') = 'NULL' THEN NULL
            WHEN json_type(line) <> 'OBJECT'
                OR NOT list_has_any(json_keys(line), getvariable('trace_fields')) THEN 'not_a_trace'
            WHEN json_type(line, '$.final_items') NOT IN ('ARRAY', 'NULL') THEN 'items_not_a_list'
            WHEN list_has_any(
                json_type(line, '$.final_items[*]'),
                ['ARRAY', 'VARCHAR', 'BOOLEAN', 'NULL', 'BIGINT', 'UBIGINT', 'HUGEINT', 'DOUBLE']
            ) THEN 'item_not_an_object'
        END AS malformed,
        trace.final_items AS items,
        CASE
            WHEN has_odd_items THEN list_transform(
                trace.final_items,
                lambda item, position: CASE
                    WHEN json_type(line, '$.final_items[' || (position - 1) || '].item_id')
                        NOT IN ('OBJECT', 'ARRAY') THEN item.item_id
                END
            )
            ELSE list_transform(trace.final_items, lambda item: item.item_id)
        END AS ids,
        -- What is no id can be one's text only where the text of a served id could be an object's.
        CASE
            WHEN has_odd_items THEN list_transform(
                trace.extras.personalized_items,
                lambda id, position: CASE
                    WHEN NOT may_be_nested(id)
                        OR json_type(line, '$.extras.personalized_items[' || (position - 1) || ']')
                        NOT IN ('OBJECT', 'ARRAY') THEN id
                END
            )
            ELSE trace.extras.personalized_items
        END AS boosted,
        map_keys(trace.caps) AS capped_ids,
        list_transform(
            map_values(trace.caps), lambda cap: label_of(cap.brand.value, getvariable('space'))
        ) AS brands,
        list_transform(
            map_values(trace.caps), lambda cap: label_of(cap.category.value, getvariable('space'))
        ) AS categories
    FROM typed
),
evident AS (
    SELECT
        *,
        CASE
            WHEN boosted IS NOT NULL THEN 'members'
            WHEN how_many(list_transform(
                items, lambda item: item.personalized IN ('true', 'false')
            )) > 0 THEN 'flags'
            WHEN how_many(list_transform(
                items, lambda item: list_contains(item.reasons, '"personalization"')
            )) > 0 THEN 'reasons'
            ELSE 'stamp'
        END AS evidence,
        -- Of years that Python's dates reach.
        CASE WHEN year(instant) BETWEEN 1 AND 9999 THEN instant END AS ts,
        regexp_extract(
            text_of(bandit.bucket_key, ''), '^ctx:(?:[^|]*[|])*?device=([^|]*)', 1
        ) AS key_device,
        list_filter(
            list_transform(
                trace.mmr_info,
                lambda pick: struct_pack(
                    is_one := NOT may_be_nested(pick.item_id),
                    brand_cap_hit := pick.brand_cap_hit = 'true',
                    category_cap_hit := pick.category_cap_hit = 'true'
                )
            ),
            lambda pick: pick.is_one
        ) AS picks
    FROM judged
),
marked AS (
    SELECT
        *,
        CASE evidence
            WHEN 'members' THEN list_filter(ids, lambda id: list_contains(boosted, id))
            WHEN 'flags' THEN list_where(
                ids,
                list_transform(items, lambda item: coalesce(item.personalized = 'true', false))
            )
            WHEN 'reasons' THEN list_where(
                ids,
                list_transform(
                    items,
                    lambda item: coalesce(list_contains(item.reasons, '"personalization"'), false)
                )
            )
            ELSE []
        END AS personalized_ids,
        coalesce(text_of(trace.org_id, getvariable('space')), 'unknown') AS org_id,
        coalesce(label_of(trace.namespace, getvariable('space')), 'unknown') AS namespace,
        coalesce(label_of(trace.surface, getvariable('space')), 'default') AS surface,
        label_of(extras.cohort, getvariable('space')) AS cohort,
        label_of(extras.device, getvariable('space')) AS device,
        lower(trimmed(key_device, getvariable('space'))) AS bucket_device,
        coalesce(
            text_of(extras.bandit_experiment, getvariable('space')),
            text_of(bandit.experiment, getvariable('space'))
        ) AS experiment,
        coalesce(
            text_of(extras.experiment_variant, getvariable('space')),
            text_of(extras.bandit_variant, getvariable('space')),
            text_of(bandit.variant, getvariable('space'))
        ) AS variant,
        coalesce(
            list_filter(
                list_transform(
                    map_entries(extras.candidate_sources),
                    lambda entry: struct_pack(
                        source := entry.key,
                        candidates := count_of(entry.value.count, getvariable('most_candidates'))
                    )
                ),
                lambda entry: entry.candidates IS NOT NULL
                    AND entry.source <> ''
                    AND NOT list_contains(getvariable('stages'), entry.source)
            ),
            []
        ) AS sources
    FROM evident
)
SELECT
    ordinal,
    coalesce(
        malformed,
        CASE
            WHEN ts IS NULL THEN 'undated'
            WHEN length(org_id) > getvariable('longest_name') OR contains(org_id, chr(0))
                THEN 'unusable_org_id'
        END
    ) AS problem,
    text_of(trace.decision_id, '') AS decision_id,
    org_id,
    ts,
    -- Of both, where one is too long.
    CASE
        WHEN length(surface) > getvariable('longest_name') THEN 'other'
        ELSE name_of(namespace)
    END AS namespace,
    CASE
        WHEN length(namespace) > getvariable('longest_name') THEN 'other'
        ELSE name_of(surface)
    END AS surface,
    -- As it is: it is compared, and never shown.
    CASE
        WHEN text_of(trace.user_hash, getvariable('space')) IS NOT NULL
            THEN trace.user_hash ->> '$'
    END
        AS user_hash,
    name_of(cohort) AS cohort,
    name_of(device) AS device,
    name_of(bucket_device) AS bucket_device,
    name_of(experiment) AS experiment,
    name_of(variant) AS variant,
    coalesce(len(items), 0) AS served_items,
    coalesce(list_count(ids), 0) AS identified_items,
    coalesce(
        CASE evidence
            WHEN 'stamp' THEN count_of(extras.personalized_items_count, len(items))
            ELSE len(personalized_ids)
        END,
        0
    ) AS personalized_items,
    CASE
        -- As a rule the first reason is text that begins with a small letter.
        WHEN reasons_surfaced THEN how_many(list_transform(
            items,
            lambda item: CASE
                WHEN CAST(item.reasons[1] AS VARCHAR) BETWEEN '"a' AND '"{' THEN true
                ELSE len(list_filter(
                    item.reasons, lambda reason: text_of(reason, getvariable('space')) IS NOT NULL
                )) > 0
            END
        ))
        ELSE 0
    END AS reason_items,
    CASE WHEN reasons_surfaced THEN coalesce(len(items), 0) ELSE 0 END AS reason_requested_items,
    how_many(list_transform(
        items,
        lambda item: item.cold_start = 'true'
            OR (reasons_surfaced AND list_contains(item.reasons, '"cold_start"'))
    )) AS cold_start_items,
    coalesce(
        list_transform(
            ids,
            lambda id: struct_pack(
                item_id := id,
                brand := brands[list_position(capped_ids, id)],
                category := categories[list_position(capped_ids, id)]
            )
        ),
        []
    ) AS items,
    coalesce(personalized_ids, []) AS personalized_ids,
    -- Those of one name are one source. As a rule no name changes.
    CASE
        WHEN how_many(list_transform(
            sources, lambda one: one.source <> name_of(one.source)
        )) = 0 THEN sources
        ELSE list_transform(
            list_sort(list_distinct(list_transform(sources, lambda one: name_of(one.source)))),
            lambda name: struct_pack(
                source := name,
                candidates := CAST(list_sum(list_transform(
                    list_filter(sources, lambda one: name_of(one.source) = name),
                    lambda one: one.candidates
                )) AS BIGINT)
            )
        )
    END AS sources,
    number_of(trace.effective_config.alpha) AS alpha,
    number_of(trace.effective_config.beta) AS beta,
    number_of(trace.effective_config.gamma) AS gamma,
    number_of(trace.effective_config.profile_boost) AS profile_boost,
    number_of(trace.effective_config.mmr_lambda) AS mmr_lambda,
    coalesce(len(picks), 0) AS mmr_picks,
    how_many(list_transform(picks, lambda pick: pick.brand_cap_hit)) AS brand_cap_hits,
    how_many(list_transform(picks, lambda pick: pick.category_cap_hit)) AS category_cap_hits
FROM marked
