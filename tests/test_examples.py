"""The examples run, and the ranking service recommends as it says it does."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.ranking_service import traffic
from examples.ranking_service.app import create_app
from examples.ranking_service.catalogue import CATEGORIES, Catalogue
from examples.ranking_service.experiment import Config
from examples.ranking_service.messages import RecommendationRequest
from examples.ranking_service.recommender import MAX_K, Recommender
from examples.ranking_service.rerank import Candidate, pick
from examples.ranking_service.settings import Fault, PlantedFault, Settings
from examples.ranking_service.tracing import DecisionTracer
from examples.ranking_service.users import RETURNING_USERS, returning_users
from otel_personalization.ndjson import Format
from otel_personalization.replay import replay
from otel_personalization.trace import Decision, read_decision, read_timestamp

REPOSITORY = Path(__file__).parents[1]
SEED = 3
RECOMMENDERS = {namespace: Recommender(namespace, SEED) for namespace in CATEGORIES}
AGAIN = {namespace: Recommender(namespace, SEED) for namespace in CATEGORIES}
CATALOGUES = {namespace: Catalogue(namespace, SEED) for namespace in CATEGORIES}
OURS = {"device", "cohort", "experiment_variant"}
"""Keys of extras that the recorded traces do not have."""

requests = st.sampled_from(sorted(CATEGORIES)).flatmap(
    lambda namespace: st.builds(
        RecommendationRequest,
        namespace=st.just(namespace),
        surface=st.sampled_from(("home", " Cart ", "")),
        user_id=st.sampled_from(returning_users(namespace)) | st.text(max_size=8),
        k=st.integers(1, 2 * MAX_K),
        include_reasons=st.booleans(),
        device=st.sampled_from(traffic.DEVICES),
        constraints=st.none()
        | st.fixed_dictionaries({"include_tags_any": st.just(["eco", "category:drama"])}),
        faults=st.frozensets(st.sampled_from(Fault)),
    )
)


def request(**fields):
    return RecommendationRequest(
        **{"namespace": "shop", "surface": "home", "user_id": "shop-user-007"} | fields
    )


def decide(request):
    return RECOMMENDERS[request.namespace].recommend(request, request.faults)


def trace_of(request):
    return DecisionTracer().finalize(decide(request))


def ids(trace):
    return [item["item_id"] for item in trace["final_items"] or ()]


# --- short examples ---------------------------------------------------------------------------


def run(*command):
    return subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("example", "personalized", "explained"),
    [("manual_hook", 2, 0), ("decorator", 1, 2), ("custom_trace", 1, 0)],
)
def test_an_example_shows_the_stamps(example, personalized, explained):
    done = run("-m", f"examples.{example}")
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout.replace("'", '"')
    assert f'"personalized_items_count": {personalized}' in shown
    assert f'"reason_items_count": {explained}' in shown


def test_the_test_of_a_tracer_passes():
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/test_tracer.py")
    assert "2 passed" in done.stdout, done.stdout


# --- the recommender --------------------------------------------------------------------------


@given(requests)
def test_a_decision_keeps_its_promises(asked):
    """Never more than k, none twice, caps and constraints hold, nothing that was looked at."""
    decision = decide(asked)
    catalogue = CATALOGUES[asked.namespace]
    served = [catalogue[picked.candidate.item.item_id] for picked in decision.picks]
    assert len(served) <= decision.k == min(asked.k, MAX_K)
    assert len(set(served)) == len(served)
    brands = Counter(item.brand for item in served if item.brand)
    assert max(brands.values(), default=0) <= decision.config.brand_cap
    categories = Counter(item.category for item in served)
    assert max(categories.values(), default=0) <= decision.config.category_cap
    if asked.constraints:
        assert all(item.tags & set(asked.constraints.include_tags_any) for item in served)
    candidates = {candidate.item.item_id for candidate in decision.candidates}
    assert {item.item_id for item in served} <= candidates
    assert set(decision.boosted) <= candidates
    assert candidates.isdisjoint(decision.anchors)


@given(requests)
def test_a_decision_is_the_same_again(asked):
    one, other = decide(asked), AGAIN[asked.namespace].recommend(asked, asked.faults)
    assert (one.picks, one.boosted, one.reasons) == (other.picks, other.boosted, other.reasons)
    assert one.candidates == other.candidates


def test_a_decision_is_the_same_in_another_process(monkeypatch):
    """Whose sets have another order."""
    program = (
        "from tests.test_examples import decide, request\n"
        "decisions = [decide(request(user_id=f'shop-user-{n:03}')) for n in range(20)]\n"
        "print([([c.item.item_id for c in d.candidates], d.reasons) for d in decisions])"
    )
    printed = set()
    for hash_seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        done = run("-c", program)
        assert done.returncode == 0, done.stderr
        printed.add(done.stdout)
    assert len(printed) == 1


def test_another_seed_is_another_catalogue():
    other = Recommender("shop", SEED + 1).recommend(request(), frozenset())
    assert decide(request()).picks != other.picks


def test_returning_users_are_personalized_and_new_ones_are_not():
    returning = [trace_of(request(user_id=user)) for user in returning_users("shop")]
    read = [read_decision(trace) for trace in returning]
    assert len(read) == RETURNING_USERS
    assert sum(decision.personalized_items > 0 for decision in read) > 0.95 * len(read)
    assert {trace["extras"]["cohort"] for trace in returning} == {"returning"}
    new = trace_of(request(user_id="nobody"))
    assert new["extras"]["cohort"] == "new"
    assert new["extras"]["anchors"] == ["(no_recent_activity)"]
    assert "personalized_items" not in new["extras"]
    sources = new["extras"]["candidate_sources"]
    assert {name: sources[name]["count"] > 0 for name in sources} == {
        "popularity": True,
        "co_visitation": False,
        "collaborative": False,
        "content": False,
        "cold_start": True,
        "merged": True,
        "post_exclusion": True,
        "post_constraints": True,
    }


@given(requests)
def test_a_fault_does_what_it_says_and_no_more(asked):
    well = read_decision(trace_of(asked.model_copy(update={"faults": frozenset()})))
    off, empty, flood = (
        read_decision(trace_of(asked.model_copy(update={"faults": frozenset([fault])})))
        for fault in Fault
    )
    assert off.personalized_items == 0
    assert off.candidates == well.candidates
    assert empty.candidates == {**well.candidates, "collaborative": 0}
    assert flood.candidates == well.candidates
    assert flood.cold_start_items >= well.cold_start_items


def test_a_flood_of_fresh_items_is_seen():
    flooded = request(k=10, include_reasons=True, faults=frozenset([Fault.COLD_START_FLOOD]))
    assert read_decision(trace_of(flooded)).cold_start_items >= 8


def test_the_experiment_varies_the_weights_of_half_of_the_users():
    arms = Counter()
    for user in returning_users("shop"):
        trace = trace_of(request(user_id=user))
        arm = trace.get("bandit", {}).get("variant")
        assert trace["extras"].get("experiment_variant") == arm
        arms[arm, trace["effective_config"]["gamma"]] += 1
    assert set(arms) == {(None, 0.3), ("control", 0.3), ("treatment", 0.5)}
    assert 100 < arms[None, 0.3] < 200
    assert min(arms.values()) > 40


def test_mmr_prefers_what_is_unlike_the_items_before():
    """By hand: of two equal candidates the unlike one, then the caps."""
    items = {item.item_id: item for item in CATALOGUES["shop"]}
    brand = next(item.brand for item in items.values() if item.brand)
    alike = [item for item in items.values() if item.brand == brand][:3]
    unlike = next(
        item
        for item in items.values()
        if CATALOGUES["shop"].similarity(item.item_id, alike[0].item_id) == 0
    )
    candidates = [Candidate(item, 1.0) for item in (*alike, unlike)]
    similarity = CATALOGUES["shop"].similarity
    picks = pick(candidates, 4, Config(mmr_lambda=0.5, brand_cap=2), similarity)
    assert [picked.candidate.item for picked in picks[:2]] == [alike[0], unlike]
    assert [picked.for_diversity for picked in picks[:2]] == [False, True]
    assert len(picks) == 3
    assert [picked.brand_count for picked in picks if picked.candidate.item.brand == brand] == [
        1,
        2,
    ]
    by_score = pick(candidates, 4, Config(mmr_lambda=1.0, brand_cap=2), similarity)
    assert [picked.candidate.item for picked in by_score] == [alike[0], alike[1], unlike]


# --- the trace --------------------------------------------------------------------------------


def keys_of(traces):
    """What keys such traces have: those of all, and those of any."""
    of_each = [set(trace) for trace in traces]
    return set.intersection(*of_each), set.union(*of_each)


def parts(traces, name):
    return [trace[name] for trace in traces if trace.get(name)]


@pytest.fixture(scope="module")
def our_traces():
    return [
        json.loads(json.dumps(trace_of(asked)))
        for number in range(120)
        for asked in [
            request(
                user_id=f"shop-user-{number:03}" if number % 3 else f"new-{number}",
                surface="home" if number % 5 else "",
                include_reasons=number % 2 == 0,
                request_id=f"r-{number}",
                constraints={"include_tags_any": ["eco", "none"]} if number % 7 == 0 else None,
            )
        ]
    ]


def test_a_trace_has_the_keys_of_the_recorded_ones(our_traces, traces):
    always, ever = keys_of(traces)
    assert always <= keys_of(our_traces)[0]
    assert keys_of(our_traces)[1] <= ever
    for name, further in (("effective_config", set()), ("bandit", set()), ("extras", OURS)):
        always, ever = keys_of(parts(traces, name))
        our_always, our_ever = keys_of(parts(our_traces, name))
        assert always <= our_always, name
        assert our_ever <= ever | further, name
    for name in ("final_items", "candidates_pre", "mmr_info"):
        ours, recorded = (
            keys_of([item for part in parts(some, name) for item in part])
            for some in (our_traces, traces)
        )
        assert recorded[0] <= ours[0], name
        assert ours[1] <= recorded[1], name
    caps, recorded_caps = (
        {
            (kind, frozenset(cap))
            for part in parts(some, "caps")
            for of_item in part.values()
            for kind, cap in of_item.items()
        }
        for some in (our_traces, traces)
    )
    assert caps <= recorded_caps
    for trace in our_traces:
        for timing in trace["extras"]["candidate_sources"].values():
            assert set(timing) == {"count", "duration_ms"}


@given(requests)
def test_a_trace_tells_the_decision(asked):
    decision = decide(asked)
    trace = DecisionTracer().finalize(decision)
    assert UUID(trace["decision_id"])
    assert read_timestamp(trace) is not None
    assert trace["ts"].endswith("Z")
    read = read_decision(trace)
    assert isinstance(read, Decision)
    boosted = set(decision.boosted) & set(ids(trace))
    assert (read.served_items, read.personalized_items) == (len(decision.picks), len(boosted))
    items = trace["final_items"] or ()
    if asked.include_reasons:
        assert read.reason_items == len(items)
        for item in items:
            assert ("personalization" in item["reasons"]) == (item["item_id"] in boosted)
    else:
        assert not any("reasons" in item for item in items)
    assert read.surface == (asked.surface.strip().lower() or "default")
    assert ("surface" in trace) == bool(asked.surface.strip())


def test_what_is_empty_is_null():
    nothing = {"include_tags_any": ["no such tag"]}
    trace = trace_of(request(constraints=nothing))
    assert trace["final_items"] is None
    assert trace["candidates_pre"] is None
    assert "mmr_info" not in trace


# --- over HTTP --------------------------------------------------------------------------------


class Told:
    """Is told of outcomes, as a hook is."""

    def __init__(self):
        self.counts = Counter()

    def record_impressions(self, count, *, namespace, surface):
        self.counts["impressions", namespace, surface] += count

    def record_clicks(self, count, *, namespace, surface):
        self.counts["clicks", namespace, surface] += count


class Client:
    """Asks an application without a server."""

    def __init__(self, app):
        self._transport = httpx.ASGITransport(app)

    def request(self, method, path, json=None):
        async def ask():
            async with httpx.AsyncClient(transport=self._transport, base_url="http://x") as client:
                return await client.request(method, path, json=json)

        return asyncio.run(ask())

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, json):
        return self.request("POST", path, json)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def client(tmp_path, told):
    settings = Settings(tmp_path, SEED, (PlantedFault.parse("personalization_off@shop/cart"),))
    return Client(create_app(settings, told))


def test_an_answer_has_the_items_of_the_stored_trace(client, tmp_path):
    body = request(include_reasons=True).model_dump(mode="json")
    answer = client.post("/v1/recommendations", json=body).json()
    (snapshot,) = (tmp_path / "traces").iterdir()
    (trace,) = map(json.loads, snapshot.read_text().splitlines())
    assert snapshot.name == f"{trace['ts'][:10]}.ndjson"
    assert answer["trace_id"] == trace["decision_id"]
    flags = [item.pop("personalized") for item in answer["items"]]
    assert answer["items"] == trace["final_items"]
    assert flags == [item_id in trace["extras"]["personalized_items"] for item_id in ids(trace)]


def test_an_answer_is_read_as_its_trace(client, tmp_path):
    """`replay --format response` counts what the stored trace says."""
    answers = tmp_path / "answers.ndjson"
    lines = []
    for user in ("shop-user-001", "shop-user-002", "nobody"):
        body = request(user_id=user, include_reasons=True).model_dump(mode="json")
        lines.append(client.post("/v1/recommendations", json=body).text)
    answers.write_text("\n".join(lines))
    by_answer = replay([answers], trace_format=Format.response).totals
    assert by_answer == replay(sorted((tmp_path / "traces").iterdir())).totals
    assert by_answer["personalized_items"] > 0


def test_a_fault_of_the_configuration_strikes_its_surface_alone(client, tmp_path):
    for surface in ("cart", "home"):
        body = request(surface=surface).model_dump(mode="json")
        answer = client.post("/v1/recommendations", json=body).json()
        assert any(item["personalized"] for item in answer["items"]) == (surface == "home")


def test_outcomes_are_stored_and_told(client, tmp_path, told):
    outcome = {
        "namespace": "shop",
        "surface": "home",
        "decision_id": "d",
        "ts": "2026-11-24T10:00:00Z",
        "impressions": ["a", "b"],
        "clicks": ["b"],
    }
    answer = client.post("/v1/events", json={"outcomes": [outcome, {**outcome, "clicks": []}]})
    assert answer.json() == {"impressions": 4, "clicks": 1}
    assert told.counts == {("impressions", "shop", "home"): 4, ("clicks", "shop", "home"): 1}
    rows = [json.loads(line) for line in (tmp_path / "outcomes.ndjson").read_text().splitlines()]
    assert [(row["item_id"], row["type"]) for row in rows] == [
        ("a", "impression"),
        ("b", "impression"),
        ("b", "click"),
        ("a", "impression"),
        ("b", "impression"),
    ]
    assert rows[0]["decision_id"] == "d"
    assert read_timestamp(rows[0]) is not None


def test_odd_requests_are_refused(client):
    odd = [
        request(namespace="nowhere").model_dump(mode="json"),
        request().model_dump(mode="json") | {"k": 0},
        request().model_dump(mode="json") | {"faults": ["nothing"]},
    ]
    statuses = [client.post("/v1/recommendations", json=body).status_code for body in odd]
    assert statuses == [404, 422, 422]
    assert client.get("/health").json() == {"status": "ok"}


# --- settings ---------------------------------------------------------------------------------


def test_settings_are_read_from_the_environment():
    assert Settings.from_environment({}) == Settings()
    settings = Settings.from_environment(
        {
            "RANKING_DATA_DIR": "there",
            "RANKING_SEED": "5",
            "RANKING_FAULTS": "collaborative_empty@media/*, personalization_off@shop/cart,",
        }
    )
    assert (settings.data_dir, settings.seed) == (Path("there"), 5)
    assert settings.faults_of("media", "home") == {Fault.COLLABORATIVE_EMPTY}
    assert settings.faults_of("shop", "cart") == {Fault.PERSONALIZATION_OFF}
    assert settings.faults_of("shop", "home") == set()


@pytest.mark.parametrize(
    "text", ["personalization_off", "personalization_off@shop", "no@shop/home"]
)
def test_a_fault_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=text.partition("@")[0]):
        PlantedFault.parse(text)
