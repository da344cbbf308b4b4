"""Counts before a provider is set, when it is set, and after."""

import json

from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_personalization import PersonalizationHook
from otel_personalization.testing import points_of

TRACE = {"namespace": "shop", "surface": "home"}

if __name__ == "__main__":
    early = PersonalizationHook()
    early.record(dict(TRACE))
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    set_meter_provider(provider)
    early.record(dict(TRACE))
    PersonalizationHook(meter_provider=provider).record(dict(TRACE))
    points = points_of(reader)["recsys.decisions"]
    print(json.dumps({"decisions": [[*labels, count] for labels, count in points.items()]}))
