"""Stored traces as a nightly job must survive them: plausible traffic with every trap planted.

One generator with two drivers: a seed, for corpora that tests compare by, and hypothesis, which
shrinks what fails::

    corpus(1)                       # 3,000 lines, of CORPUS_DAYS and NAMESPACES, by day
    @given(LINES)                   # a few lines

What is planted has one reading. `UNSETTLED` are lines that readers of JSON take differently: a job
must survive them, whatever it counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from hashlib import sha256
from random import Random
from typing import Any, Final

from hypothesis import strategies as st

Trace = dict[str, Any]

CORPUS_DAYS: Final = tuple(date(2026, 11, 19) + timedelta(n) for n in range(4))
CORPUS_SEEDS: Final = (1, 2)
CORPUS_LINES: Final = 3_000
NAMESPACES: Final = ("shop", "media", "münchen")
SURFACES: Final = ("home", "pdp", "cart")
ORG: Final = "00000000-0000-0000-0000-000000000001"
OTHER_ORG: Final = "00000000-0000-0000-0000-000000000002"
"""Beside it, a few traces have no organisation: ``unknown``."""
USERS: Final = 60
"""Of each namespace: more than the 30 that percentiles need, on most surfaces of a day."""
ITEMS: Final = 80
"""Of each namespace."""

ODD_IDS: Final = (
    # JSON paths, quotes, slashes, blanks, case and composition must not run into one another.
    *("", " ", "0", "5", "5.0", "*", "$", "$.x", "a.b", "a[0]", 'say "hi"', "it's", "a/b", "a\\b"),
    *("x", "X", "x ", " x", "\u200b", "x\u200b", "null", "None", "%", "{}", "a,b", "<b>&amp;"),
    *(
        "caf\u00e9",
        "cafe\u0301",
        "söns & co",
        "日本",
        "🎧",
        "🎧🎧",
        "\u2028",
        "tab\there",
        "l" * 200,
    ),
)
"""Item ids that are text."""
OTHER_IDS: Final = (5, 5.0, -1, 2.5, 2**40, 2**70, True, False)
"""Item ids that are scalars; as text, the first two are ``5`` and ``5.0``."""
NO_IDS: Final[tuple[Any, ...]] = (None, [], {}, ["x"], {"item_id": "x"})
BLANKS: Final = ("", " ", "\t\n", "\u00a0", "\u3000\u2009")
NO_TEXT: Final[tuple[Any, ...]] = (None, 3, 1.5, True, [], ["x"], {}, {"value": "x"}, *BLANKS)
"""What is no name of anything."""
NAMES: Final = (
    *("Spring", " Spring ", "spring", "all", "All", " all", "all_", "none", "None", "none_"),
    *("unknown", "default", "new", "a,b", "b,a", "it's", '"q"', "a/b|c=d", "n" * 64, "\u200b"),
    *("ÉTÉ", "\u00a0Web\u3000", "日本", "🎧", "x\u2028y", "<script>alert(1)</script>", "'; --"),
    *("N" * 65, f" {'n' * 64}\t", "🎧" * 65, "other", "a\0b", "a\ufffdb", "\0"),
)
"""Names of surfaces, cohorts, devices, experiments, variants, brands and categories."""
COUNTS: Final[tuple[Any, ...]] = (
    *(0, 1, 7, 1_000_000_000, 1_000_000_001, -1, 2**31, 2**63, 2**70),
    *(True, False, 0.0, 3.0, 1e3, float("nan"), float("inf"), "3", "", None, [], [3], {"count": 3}),
)


# --- plausible traffic ------------------------------------------------------------------------


def plausible(rng: Random, day: date) -> Trace:
    """A trace as services write it, with a user, lists that overlap, caps on half of the items."""
    namespace = rng.choice(NAMESPACES)
    user = min(rng.randrange(USERS), rng.randrange(USERS))  # some come often
    ids = [f"{namespace}-{n:04d}" for n in range(ITEMS)]
    liked = sorted(range(ITEMS), key=lambda n: n + rng.randrange(60))[:14]  # mostly the first
    candidates = [ids[n] for n in liked]
    served = candidates[: rng.choice((0, 1, 3, 5, 8, 10, 10, 10, 12, 12))]
    asked = rng.random() < 0.7
    boosted = [item_id for item_id in candidates if rng.random() < 0.6]
    instant = datetime(day.year, day.month, day.day, tzinfo=timezone.utc) + timedelta(
        microseconds=rng.randrange(86_400_000_000)
    )
    collaborative = rng.choice((0, 0, 0, 4))
    trace: Trace = {
        "decision_id": f"{rng.getrandbits(128):032x}",
        "org_id": ORG,
        "namespace": namespace,
        "ts": written(rng, instant),
        "surface": rng.choice(SURFACES),
        "request_id": f"r{rng.randrange(1000)}",
        "user_hash": sha256(f"{namespace}/{user}".encode()).hexdigest(),
        "k": 12,
        "effective_config": {
            "alpha": rng.choice((0.3, 0.5, 1)),
            "beta": 0.5,
            "gamma": rng.choice((0.2, 0)),
            "profile_boost": 0.5,
            "mmr_lambda": 0.35,
            "brand_cap": 2,
        },
        "final_items": [item(item_id, boosted) for item_id in served] or None,
        "mmr_info": [
            {"pick_index": n, "item_id": item_id, **cap_hits(rng)}
            for n, item_id in enumerate(served)
        ],
        "caps": {item_id: cap(rng, item_id) for item_id in candidates[::2]},
        "extras": {
            "include_reasons": asked,
            "candidate_sources": {
                "popularity": {"count": 14, "duration_ms": 1.5},
                "collaborative": {"count": collaborative, "duration_ms": 0.7},
                "merged": {"count": 14 + collaborative},
            },
        },
    }
    if boosted:
        trace["extras"]["personalized_items"] = boosted
    if not asked:
        for one in trace["final_items"] or ():
            del one["reasons"]
    if rng.random() < 0.5:
        arm = rng.choice(("control", "treatment"))
        experiment = rng.choice(("blend", "blend", "diversity"))
        trace["extras"] |= {"bandit_experiment": experiment, "bandit_variant": arm}
        trace["bandit"] = {"bucket_key": f"ctx:device={rng.choice(('web', 'ios'))}|surface=home"}
    return trace


def item(item_id: str, boosted: list[str]) -> Trace:
    reasons = ["recent_popularity", *(["personalization"] if item_id in boosted else [])]
    return {"item_id": item_id, "score": 0.5, "reasons": reasons}


def cap(rng: Random, item_id: str) -> Trace:
    number = int(item_id[-4:])
    brand = f"brand{number % 9}" + (",colab" if number % 20 == 0 else "")
    category = {"applied": True, "limit": 3, "value": f"category{number % 4}"}
    caps = {"brand": {"applied": True, "value": brand}, "category": category}
    return caps if rng.random() < 0.8 else {"brand": {"applied": False}}


def cap_hits(rng: Random) -> Trace:
    return {f"{of}_cap_hit": True for of in ("brand", "category") if rng.random() < 0.5}


def written(rng: Random, instant: datetime) -> str:
    """A timestamp of 3 to 6 digits, with "Z" or an offset, or as PostgreSQL writes it."""
    form = rng.randrange(8)
    if form == 0:  # as PostgreSQL does
        return f"{instant:%Y-%m-%d %H:%M:%S.%f}".rstrip("0") + "0+00"
    if form == 1:
        offset = timezone(timedelta(minutes=rng.choice((120, -60, 330, -570, 840, -720))))
        return instant.astimezone(offset).isoformat(timespec="microseconds")
    return f"{instant:%Y-%m-%dT%H:%M:%S.%f}"[: rng.choice((23, 24, 25, 26, 26, 26))] + "Z"


# --- traps ------------------------------------------------------------------------------------


def items_of(trace: Trace) -> list[Any]:
    """The items of a trace that its traps may change; empty where they are none any more."""
    items = trace.get("final_items")
    return [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []


def part(trace: Trace, key: str) -> Trace:
    """A part of a trace that its traps may change."""
    if not isinstance(trace.get(key), dict):
        trace[key] = {}
    inner: Trace = trace[key]
    return inner


def put(rng: Random, owner: Trace, key: str, *values: Any) -> None:
    """Set a key to one of the values, or take it away."""
    owner.pop(key, None)
    if rng.random() < 0.9:
        owner[key] = rng.choice(values)


def odd_ids(rng: Random, trace: Trace) -> None:
    """Odd ids, some repeated, some boosted, some with caps."""
    boosted = part(trace, "extras").get("personalized_items")
    for one in items_of(trace):
        if rng.random() < 0.6:
            one["item_id"] = rng.choice(rng.choice((ODD_IDS, ODD_IDS, OTHER_IDS, NO_IDS)))
            if isinstance(boosted, list) and rng.random() < 0.4:
                boosted.append(one["item_id"])
            if isinstance(one["item_id"], str) and rng.random() < 0.7:
                part(trace, "caps")[one["item_id"]] = {"brand": {"value": rng.choice(NAMES)}}


def no_ids(rng: Random, trace: Trace) -> None:
    """No item has an id: items are served, and there is no list."""
    for one in items_of(trace):
        put(rng, one, "item_id", *NO_IDS)


def repeated_items(rng: Random, trace: Trace) -> None:
    """Served twice; the first k distinct ones are a list."""
    items = items_of(trace)
    for one in items[: rng.randrange(8)]:
        trace["final_items"].insert(rng.randrange(4), dict(one))


def many_items(rng: Random, trace: Trace) -> None:
    """A list of more than a hundred."""
    ids = [f"many-{n}" for n in range(rng.choice((100, 150)))]
    trace["final_items"] = [{"item_id": item_id} for item_id in ids]


def odd_items(rng: Random, trace: Trace) -> None:
    """Empty in several ways, or malformed."""
    put(rng, trace, "final_items", None, [], "x", "", 0, {}, {"item_id": "x"}, False)


def odd_entries(rng: Random, trace: Trace) -> None:
    """An entry that is no object makes a trace malformed; an empty object is an item."""
    items = items_of(trace)
    odd: Any = rng.choice(({}, {}, {}, None, "x", 1, []))
    trace["final_items"] = [*items[:2], odd, *items[2:]]


def odd_reasons(rng: Random, trace: Trace) -> None:
    for one in items_of(trace):
        put(
            rng,
            one,
            "reasons",
            *([], [""], [" ", "\u00a0"], ["\u200b"], ["cold_start"], ["x", "cold_start"]),
            *([None], [3, "x"], [" cold_start"], "cold_start", {"cold_start": 1}, None, 7),
            *(["personalization"], [["personalization"]], ["fresh_rank_1", "rule.pin[<uuid>]"]),
        )


def odd_flags(rng: Random, trace: Trace) -> None:
    """Flags of personalised and cold items, of right and wrong types."""
    for one in items_of(trace):
        put(rng, one, "personalized", True, False, "true", 1, 0, None, [])
        put(rng, one, "cold_start", True, False, "true", 1, None)


def no_boosted(rng: Random, trace: Trace) -> None:
    """Without the list, flags, reasons and the stamp are evidence, in this order."""
    extras = part(trace, "extras")
    put(rng, extras, "personalized_items", None, "x", {}, {"x": True}, 3, True)
    if rng.random() < 0.5:
        for one in items_of(trace):
            one.pop("reasons", None)
    put(rng, extras, "personalized_items_count", 0, 1, 3, 3.0, -1, True, "3", 2**70, None)


def odd_boosted(rng: Random, trace: Trace) -> None:
    """The list is evidence whatever it holds."""
    served = [one.get("item_id") for one in items_of(trace)]
    ids: list[Any] = rng.choice(
        ([], served, served * 2, [*served, *NO_IDS], [*ODD_IDS, *OTHER_IDS], [{}])
    )
    part(trace, "extras")["personalized_items"] = list(ids)


def odd_include_reasons(rng: Random, trace: Trace) -> None:
    put(rng, part(trace, "extras"), "include_reasons", True, False, "false", 0, None, [], "x")


def odd_sources(rng: Random, trace: Trace) -> None:
    names = (
        "popularity",
        "collaborative",
        "MERGED",
        "merged",
        " ",
        "",
        "all",
        "séance",
        "a.b",
        "*",
        *("s" * 64, "s" * 65, "S" * 65, "other", "a\0b", "a\ufffdb"),
    )
    entries: dict[str, Any] = {}
    for source in rng.sample(names, rng.randrange(len(names))):
        count = rng.choice(COUNTS)
        entries[source] = rng.choice(({"count": count}, {"count": count}, count, {}, None, "x"))
    put(
        rng, part(trace, "extras"), "candidate_sources", entries, entries, entries, None, [], "x", 3
    )


def odd_surface(rng: Random, trace: Trace) -> None:
    put(rng, trace, "surface", *("HOME ", " All", "\u00a0home\u3000") * 5, *NAMES, *NO_TEXT)


def odd_namespace(rng: Random, trace: Trace) -> None:
    put(
        rng,
        trace,
        "namespace",
        " SHOP",
        "Shop\t",
        "shop\u00a0",
        "MÜNCHEN",
        "all",
        "n" * 65,
        "a\0b",
        *NO_TEXT,
    )


def odd_org(rng: Random, trace: Trace) -> None:
    put(rng, trace, "org_id", OTHER_ORG, OTHER_ORG, None, "", " ", 3, [], "o" * 65)


def odd_user(rng: Random, trace: Trace) -> None:
    put(rng, trace, "user_hash", "short", "ключ", 'u"1', "u" * 200, *NO_TEXT)


def odd_cohort(rng: Random, trace: Trace) -> None:
    put(rng, part(trace, "extras"), "cohort", *("VIP", " vip ") * 4, "returning", *NAMES, *NO_TEXT)


def odd_device(rng: Random, trace: Trace) -> None:
    put(rng, part(trace, "extras"), "device", "Web", " web", "ios", *NAMES, *NO_TEXT)


def odd_bucket(rng: Random, trace: Trace) -> None:
    put(
        rng,
        part(trace, "bandit"),
        "bucket_key",
        *("ctx:device=web|surface=home", *("ctx:surface=home|device= TV ",) * 6, "ctx:device=All"),
        *("ctx:", "ctx:surface=home", "ctx:device=", "ctx:device= |surface=x", "ctx:mydevice=tv"),
        *("ctx:device", "ctx:device=a=b", "ctx:surface=device=web", "ctx:device=ü|", "ctx:|||"),
        *NO_TEXT,
    )


def odd_experiment(rng: Random, trace: Trace) -> None:
    extras, bandit = part(trace, "extras"), part(trace, "bandit")
    for owner, key in (
        (extras, "bandit_experiment"),
        (bandit, "experiment"),
        (extras, "experiment_variant"),
        (extras, "bandit_variant"),
        (bandit, "variant"),
    ):
        put(rng, owner, key, "blend", "A", " A", "a", *NAMES[3:11], rng.choice(NAMES), *NO_TEXT)


def odd_weights(rng: Random, trace: Trace) -> None:
    config = part(trace, "effective_config")
    for weight in ("alpha", "beta", "gamma", "profile_boost", "mmr_lambda"):
        put(rng, config, weight, 0, 0.0, 1, 1.0, 0.1, -2, 1e-9, True, "0.5", None, [], float("nan"))
    if rng.random() < 0.3:
        put(rng, trace, "effective_config", None, {}, [], "x", 3)


def odd_caps(rng: Random, trace: Trace) -> None:
    """Caps of items that were not served, and of odd shapes."""
    caps = part(trace, "caps")
    caps["never served"] = {"brand": {"value": "ghost"}, "category": {"value": "ghost"}}
    for item_id in rng.sample(sorted(caps), rng.randrange(len(caps) + 1)):
        of = rng.choice(("brand", "category"))
        value = rng.choice((*NAMES, *NO_TEXT))
        caps[item_id] = rng.choice(
            ({of: {"value": value}}, {of: {"value": value}}, {of: value}, {of: {}}, value, {})
        )
    if rng.random() < 0.2:
        put(rng, trace, "caps", None, [], "x", 3, {})


def odd_picks(rng: Random, trace: Trace) -> None:
    flags = (True, True, False, "true", 1, None)
    picks: list[Any] = []
    for _ in range(rng.randrange(5)):
        pick = {"brand_cap_hit": rng.choice(flags), "category_cap_hit": rng.choice(flags)}
        picks.append(rng.choice((pick, pick, {}, None, "x", 3)))
    put(rng, trace, "mmr_info", picks, picks, picks, [], None, {}, "x", 3, {"brand_cap_hit": True})


def odd_extras(rng: Random, trace: Trace) -> None:
    put(rng, trace, "extras", None, [], ["x"], "x", 3, {})
    put(rng, trace, "bandit", None, [], "x", 3, {})


def odd_decision_id(rng: Random, trace: Trace) -> None:
    """No id that tells deliveries apart, or one that other decisions have."""
    put(rng, trace, "decision_id", None, "", 7, [], {}, " ", "id-1", "id-2", "ID-1", "é", "\u200b")


def near_midnight(rng: Random, trace: Trace) -> None:
    """The UTC date is not the one that is written; what is cut must not be rounded to the next."""
    day = rng.choice(CORPUS_DAYS)
    clock = rng.choice(
        (
            *("T00:00:00Z", "T00:00:00.000000Z", "T00:00:00+00:00", "T23:59:59.999999Z"),
            *("T23:59:59.9999999Z", "T23:59:59.999999999Z", "T01:30:00+02:00", "T23:30:00-01:00"),
            *("T05:29:59.999+05:30", "T00:30:00.123+0100", "T00:00:00.5+14", " 23:59:59.999-00"),
            *("t00:00:00.001z", "T12:00:00", " 12:00:00.25", "T23:59:59.9995-00:30"),
        )
    )
    trace["ts"] = rng.choice(("", "", " ", "\t")) + day.isoformat() + clock + rng.choice(("", " "))


def undated(rng: Random, trace: Trace) -> None:
    day = rng.choice(CORPUS_DAYS).isoformat()
    put(
        rng,
        trace,
        "ts",
        *(f"{day}T24:30:00Z", f"{day}T12:60:00Z", f"{day}", f"{day}T12:00Z", f"{day}T12:00:00.Z"),
        *(
            f"{day}T12:00:00 Z",
            f"{day}T12:00:00+24:00",
            f"{day}T12:00:00+2:00",
            f"x{day}T12:00:00Z",
        ),
        *("2026-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00", "yesterday", "", None, 1763500000),
        *(1763500000.5, True, [], {"ts": day}, f"{day}T12:00:00Z\u200b", f"{day}T1\uff12:00:00Z"),
    )


TRAPS: Final[tuple[Callable[[Random, Trace], None], ...]] = (
    *(odd_ids, no_ids, repeated_items, many_items, odd_items, odd_entries, odd_reasons, odd_flags),
    *(no_boosted, odd_boosted, odd_include_reasons, odd_sources, odd_surface, odd_namespace),
    *(odd_org, odd_user, odd_cohort, odd_device, odd_bucket, odd_experiment, odd_weights, odd_caps),
    *(odd_picks, odd_extras, odd_decision_id, near_midnight, undated),
)


# --- lines ------------------------------------------------------------------------------------


def trapped(rng: Random, day: date, traps: int) -> Trace:
    """A plausible trace with so many traps."""
    trace = plausible(rng, day)
    for trap in rng.sample(TRAPS, traps):
        trap(rng, trace)
    return trace


def line_of(rng: Random, trace: Trace) -> str:
    """A trace as one line of JSON, escaped or not, spaced or not."""
    line = json.dumps(
        trace,
        ensure_ascii=rng.random() < 0.3,
        separators=rng.choice(((",", ":"), (", ", ": "), (" ,\t", " : "))),
    )
    return rng.choice(("", "", "", " ", "\t")) + line + rng.choice(("", "", "", " ", "\r"))


def broken(rng: Random, line: str) -> str:
    """A line that is no JSON, or JSON that is no trace, or blank."""
    line = line.strip()
    return rng.choice(
        (
            *("", " ", "\r", "null", "[]", "3", "true", '"x"', "NaN", "{}", f"[{line}]", "{", "]["),
            *(
                line[:-1],
                line[: len(line) // 2],
                line + "}",
                line + line,
                "x" + line,
            ),
            *(json.dumps(line), line.replace('"', "'"), "// " + line),
        )
    )


def again(rng: Random, trace: Trace) -> Trace:
    """A trace once more: delivered twice, then or later; or another decision of its instant."""
    trace = json.loads(json.dumps(trace))
    items = items_of(trace)
    changed = rng.randrange(4)
    if changed and isinstance(trace.get("decision_id"), str) and trace["decision_id"]:
        if changed == 1:  # the same id, earlier or later, on this day or another
            trace["ts"] = written(rng, noon(rng.choice(CORPUS_DAYS)) + jitter(rng))
        elif changed == 2:  # of ids of one instant, the largest is the last
            trace["decision_id"] = (
                rng.choice(("", "0", "Z", "ü", "\uff5e", "🎧")) + f"{rng.getrandbits(64):x}"
            )
        if items:
            trace["final_items"] = items[::-1]
    return trace


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=timezone.utc)


def jitter(rng: Random) -> timedelta:
    return timedelta(microseconds=rng.randrange(-43_200_000_000, 43_200_000_000))


def lines_of(rng: Random, count: int, traps: tuple[int, ...]) -> list[str]:
    """So many lines.

    Args:
        rng: draws.
        count: number of lines.
        traps: how many traps a trace may have; each number is as likely.
    """
    lines: list[str] = []
    traces: list[Trace] = []
    while len(lines) < count:
        if traces and rng.random() < 0.04:
            trace = again(rng, rng.choice(traces))
        else:
            trace = trapped(rng, rng.choice(CORPUS_DAYS), rng.choice(traps))
        traces.append(trace)
        line = line_of(rng, trace)
        lines.append(broken(rng, line) if rng.random() < 0.03 else line)
    return lines


def hostile_lines(seed: int, count: int) -> list[str]:
    """So many lines, each with traps; the same for the same seed."""
    return lines_of(Random(seed), count, (1, 2, 3, 4))


def corpus(seed: int) -> list[str]:
    """`CORPUS_LINES` lines in which traps are planted among plausible traffic of `CORPUS_DAYS`."""
    return lines_of(Random(seed), CORPUS_LINES, (0, 0, 1, 2))


LINES: Final = st.builds(
    lines_of,
    st.randoms(use_true_random=False),
    st.integers(0, 12),
    st.just((0, 1, 2, 3, 4)),
)
"""A few lines."""


def _unsettled(lines: list[Trace]) -> list[str]:
    trace = {"namespace": "unsettled", "org_id": ORG, "ts": "2026-11-20T12:00:00Z"}
    return [
        json.dumps({**trace, "decision_id": f"unsettled-{n}", "final_items": [], **fields})
        for n, fields in enumerate(lines)
    ]


UNSETTLED: Final = (
    *_unsettled(
        [
            # Text that UTF-8 cannot hold, and hashes that PostgreSQL cannot.
            {"final_items": [{"item_id": "\ud800"}]},
            {"surface": "\udfff"},
            {"user_hash": "\0", "final_items": [{"item_id": "\0"}]},
            # Text that languages lower differently.
            {"surface": "İSTANBUL ΣΑΣ"},
            # Scalars that languages write differently.
            {"final_items": [{"item_id": 1e300}, {"item_id": -0.0}, {"item_id": float("nan")}]},
            {"final_items": [{"item_id": True}, {"item_id": "true"}, {"item_id": "True"}]},
            {"effective_config": {"alpha": 10**400, "beta": 2**63}},
            # An offset past the clock.
            {"ts": "2026-11-20T12:00:00+02:75"},
            # A bucket that is none of ours.
            {"bandit": {"bucket_key": "device=web|surface=home"}},
        ]
    ),
    # A comma too much, which some readers overlook.
    _unsettled([{"decision_id": "comma"}])[0][:-1] + ",}",
    # A key twice: the first counts, or the last.
    _unsettled([{}])[0][:-1] + ', "decision_id": "a", "decision_id": "b"}',
    # A mark of the order of bytes.
    "\ufeff" + _unsettled([{"decision_id": "marked"}])[0],
    # A response among traces.
    '{"items": [{"item_id": "a"}], "namespace": "unsettled", "ts": "2026-11-20T12:00:00Z"}',
    # More depth than a parser has.
    "[" * 100_000,
)
"""Lines of readings of their own; those that are counted are of `ORG` or of no organisation, and of
the namespace ``unsettled``."""
