"""PagerDuty, Slack and a dead man's switch on loopback, strict about what they are sent.

They check what the documentation of Events API v2 and of incoming webhooks says of the format,
answer as the real ones do, and remember what they took, and what they refused.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import serving

ROUTING_KEY = "0123456789abcdef0123456789abcdef"
PAGERDUTY, RANKING, TICKETS, SWITCH = (
    "/v2/enqueue",
    "/services/T0/B0/ranking",
    "/services/T0/B0/tickets",
    "/switch",
)

EVENT_BYTES = 512 * 1024
SUMMARY_CHARACTERS = 1024
DEDUP_KEY_CHARACTERS = 255
ACTIONS = ("trigger", "acknowledge", "resolve")
SEVERITIES = ("critical", "error", "warning", "info")
SLACK_TEXT_CHARACTERS = 40_000

Json = dict[str, Any]


@dataclass
class Receivers:
    """What has been received, in order."""

    url: str
    events: list[Json] = field(default_factory=list)
    """That PagerDuty took."""
    messages: dict[str, list[Json]] = field(default_factory=lambda: {RANKING: [], TICKETS: []})
    """That Slack took, by the path of the webhook."""
    beats: list[float] = field(default_factory=list)
    """When the dead man's switch was called, in s of the monotonic clock."""
    refused: list[str] = field(default_factory=list)
    """What was wrong with what was not taken."""

    def incidents(self) -> list[tuple[str, str]]:
        """Of each event, what it did, and its summary."""
        return [(event["event_action"], event["payload"]["summary"]) for event in self.events]

    def titles(self, webhook: str) -> list[str]:
        """Of each message."""
        return [message["attachments"][0]["title"] for message in self.messages[webhook]]


# --- the formats ------------------------------------------------------------------------------


def faults_of_event(event: Any) -> list[str]:
    """What Events API v2 has to say against an event."""
    if not isinstance(event, dict):
        return ["the event is no object"]
    allowed = ("routing_key", "event_action", "dedup_key", "payload", "images", "links")
    faults = [*_unknown(event, (*allowed, "client", "client_url"), "the event")]
    if not _text(event.get("routing_key"), 32) or len(event["routing_key"]) != 32:
        faults.append("routing_key is not of 32 characters")
    elif event["routing_key"] != ROUTING_KEY:
        faults.append("routing_key is of no service")
    action = event.get("event_action")
    if action not in ACTIONS:
        faults.append(f"event_action is {action!r}")
    if (action != "trigger" or "dedup_key" in event) and not _text(
        event.get("dedup_key"), DEDUP_KEY_CHARACTERS
    ):
        faults.append("dedup_key is none")
    if action == "trigger" or "payload" in event:
        faults += _faults_of_payload(event.get("payload"))
    for key, needed in (("links", ("href",)), ("images", ("src",))):
        for one in event.get(key) or ():
            if not all(_is_url(one.get(name)) for name in needed):
                faults.append(f"{key} has one without {', '.join(needed)}")
    if "client_url" in event and not _is_url(event["client_url"]):
        faults.append("client_url is no URL")
    return faults


def _faults_of_payload(payload: Any) -> list[str]:
    if not isinstance(payload, dict):
        return ["payload is no object"]
    texts = ("component", "group", "class")
    allowed = ("summary", "source", "severity", "timestamp", "custom_details", *texts)
    faults = [*_unknown(payload, allowed, "payload")]
    if not _text(payload.get("summary"), SUMMARY_CHARACTERS):
        faults.append(f"summary is not of 1 to {SUMMARY_CHARACTERS} characters")
    if not _text(payload.get("source")):
        faults.append("source is none")
    if payload.get("severity") not in SEVERITIES:
        faults.append(f"severity is {payload.get('severity')!r}")
    faults += [f"{key} is no text" for key in texts if not isinstance(payload.get(key, ""), str)]
    if "timestamp" in payload:
        try:
            datetime.fromisoformat(payload["timestamp"].replace("Z", "+00:00"))
        except (ValueError, AttributeError):
            faults.append(f"timestamp is {payload['timestamp']!r}")
    if not isinstance(payload.get("custom_details", {}), dict):
        faults.append("custom_details is no object")
    return faults


def faults_of_message(message: Any) -> list[str]:
    """What Slack has to say against a message to an incoming webhook; "" stands for absent."""
    if not isinstance(message, dict):
        return ["invalid_payload: no object"]
    own = ("channel", "username", "icon_emoji", "icon_url", "link_names")
    faults = [*_unknown(message, ("text", "attachments", "blocks", "mrkdwn", *own), "the message")]
    attachments = message.get("attachments", [])
    if not message.get("text") and not attachments:
        faults.append("no_text")
    if len(message.get("text", "")) > SLACK_TEXT_CHARACTERS:
        faults.append("msg_too_long")
    channel = message.get("channel", "")
    if channel and not re.fullmatch(r"[#@][a-z0-9_-]{1,80}|[CGD][A-Z0-9]{8,}", channel):
        faults.append(f"channel_not_found: {channel!r}")
    if len(attachments) > 100:
        faults.append("too_many_attachments")
    for one in attachments:
        faults += _faults_of_attachment(one)
    return faults


def _faults_of_attachment(one: Any) -> list[str]:
    if not isinstance(one, dict):
        return ["invalid_attachments: one is no object"]
    texts = ("fallback", "color", "pretext", "author_name", "title", "text", "footer")
    urls = ("author_link", "author_icon", "title_link", "image_url", "thumb_url", "footer_icon")
    faults = [
        *_unknown(
            one,
            (*texts, *urls, "fields", "actions", "mrkdwn_in", "callback_id", "ts", "blocks"),
            "an attachment",
        )
    ]
    if not (one.get("fallback") or one.get("text")):
        faults.append("no_text: an attachment has neither fallback nor text")
    if not re.fullmatch(r"good|warning|danger|#[0-9a-fA-F]{6}|", one.get("color", "")):
        faults.append(f"color is {one['color']!r}")
    faults += [f"{key} is no URL" for key in urls if one.get(key) and not _is_url(one[key])]
    if set(one.get("mrkdwn_in") or ()) - {"pretext", "text", "fields", "fallback"}:
        faults.append(f"mrkdwn_in is {one['mrkdwn_in']!r}")
    for key in ("title", "text", "fallback"):
        # <https://…|text> is a link; any other < is an instruction, or should have been escaped.
        rest = re.sub(r"<https?://[^|<>\s]+(\|[^<>|]+)?>", "", one.get(key, ""))
        if re.search(r"[<>]|&(?!amp;|lt;|gt;)", rest):
            faults.append(f"{key} is not escaped: {one[key]!r}")
    return faults


def _unknown(found: Mapping[str, Any], known: tuple[str, ...], where: str) -> list[str]:
    return [f"{where} has {key!r}" for key in found if key not in known]


def _text(value: object, most: int = SUMMARY_CHARACTERS) -> bool:
    return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= most


def _is_url(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"https?://[^\s<>|]+", value))


# --- the servers ------------------------------------------------------------------------------


@contextmanager
def receiving_alerts() -> Iterator[Receivers]:
    """All of them, on one port of loopback."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                status, kind, answer = _answer(received, self.path, self.headers, body)
            said = answer.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Nothing: the tests say what matters."""

    received = Receivers("")
    with serving(Handler) as received.url:
        yield received


def _answer(
    received: Receivers, path: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, str, str]:
    """Status, content type and text."""
    if path == SWITCH:
        received.beats.append(time.monotonic())
        return 200, "text/plain", "OK"
    if path not in (PAGERDUTY, RANKING, TICKETS):
        received.refused.append(f"{path}: there is no such endpoint")
        return 404, "text/plain", "no_service"
    check: Callable[[Any], list[str]]
    check = faults_of_event if path == PAGERDUTY else faults_of_message
    try:
        said = json.loads(body)
        faults = check(said)
    except ValueError as error:
        said, faults = None, [f"no JSON: {error}"]
    if not headers.get("Content-Type", "").startswith("application/json"):
        faults.append(f"Content-Type is {headers.get('Content-Type')}")
    if path == PAGERDUTY and len(body) > EVENT_BYTES:
        faults.append("the event is too large")
    received.refused += [f"{path}: {fault}" for fault in faults]
    if path == PAGERDUTY:
        if faults:
            refusal = {"status": "invalid event", "message": "invalid", "errors": faults}
            return 400, "application/json", json.dumps(refusal)
        received.events.append(said)
        done = {"status": "success", "message": "Event processed", "dedup_key": said["dedup_key"]}
        return 202, "application/json", json.dumps(done)
    if faults:
        return 400, "text/plain", faults[0].partition(":")[0]
    received.messages[path].append(said)
    return 200, "text/plain", "ok"
