"""Prints how a second global provider is refused."""

import json

from otel_personalization import pipeline

if __name__ == "__main__":
    pipeline.configure("ranking", endpoint="http://127.0.0.1:9", export_timeout=0.1)
    try:
        pipeline.configure("ranking")
    except RuntimeError as error:
        print(json.dumps({"refused": str(error)}))
