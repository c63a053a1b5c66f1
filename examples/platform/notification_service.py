"""The notification service: messages to users, e-mail, and a live stream of both."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from server import Answer
from service import Request, Service, found, text

POLL = 0.2
HEARTBEAT = 1.0
MAX_STREAM = 60.0

SCHEMA = """
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,
    recipient TEXT NOT NULL,
    message TEXT NOT NULL,
    correlation_id TEXT
);
"""
INSERT = "INSERT INTO notifications (channel, recipient, message, correlation_id) VALUES (?, ?, ?, ?)"

service = Service(
    "notification-service",
    port=9005,
    schema=SCHEMA,
    seed={INSERT: [("push", "Ada", "Welcome to the demo platform", None)]},
)
db = service.database


def send(request: Request, channel: str, recipient: str, message: str) -> Answer:
    """Write a message down, which is all that sending means here, with the id that the gateway gave the request."""
    notification_id = db.write(INSERT, channel, recipient, message, request.headers.get("X-Correlation-ID")).lastrowid
    notification = db.row("SELECT * FROM notifications WHERE id = ?", notification_id)
    return Answer(201, notification, {"Location": f"/api/v1/notifications/{notification_id}"})


@service.route("GET", "/api/v1/notifications")
def list_notifications(request: Request) -> Answer:
    notifications = db.rows("SELECT * FROM notifications ORDER BY id DESC LIMIT ?", request.limit)
    return Answer(document={"notifications": notifications})


@service.route("POST", "/api/v1/notifications")
def notify(request: Request) -> Answer:
    given = request.document()
    return send(request, text(given, "channel", "push"), text(given, "recipient"), text(given, "message"))


@service.route("GET", "/api/v1/notifications/stream")
def stream(request: Request) -> Answer:
    """Answer with server-sent events for `?seconds=`: the newest notifications first, then each as it is sent."""
    seconds = request.number("seconds", 5, 0, MAX_STREAM)
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    return Answer(200, headers=headers, stream=events(seconds))


@service.route("GET", "/api/v1/notifications/{id}")
def get_notification(request: Request) -> Answer:
    return found(db.row("SELECT * FROM notifications WHERE id = ?", request.params["id"]))


@service.route("GET", "/api/v1/email")
def list_email(request: Request) -> Answer:
    select = "SELECT * FROM notifications WHERE channel = 'email' ORDER BY id DESC LIMIT ?"
    return Answer(document={"email": db.rows(select, request.limit)})


@service.route("POST", "/api/v1/email")
def send_email(request: Request) -> Answer:
    given = request.document()
    return send(request, "email", text(given, "to"), f"{text(given, 'subject')}\n\n{text(given, 'body')}")


def events(seconds: float) -> Iterator[bytes]:
    """Write notifications as server-sent events, with a comment each second in which there are none."""
    last = db.row("SELECT max(id) - 3 AS id FROM notifications")["id"]
    now = time.monotonic()
    end, beat = now + seconds, now
    while True:
        for row in db.rows("SELECT * FROM notifications WHERE id > ? ORDER BY id", last):
            yield event(row)
            last, beat = row["id"], now
        if now >= beat + HEARTBEAT:
            yield b": nothing new\n\n"
            beat = now
        if now >= end or service.stopping.wait(min(POLL, end - now)):
            return
        now = time.monotonic()


def event(row: dict[str, Any]) -> bytes:
    """Return one notification as a server-sent event."""
    return f"id: {row['id']}\nevent: notification\ndata: {json.dumps(row)}\n\n".encode()


if __name__ == "__main__":
    service.main()
