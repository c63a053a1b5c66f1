"""The user service: users, roles, and logging in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import time
from typing import Any

from peer import Refusal
from server import Answer
from service import Request, Service, found, text

TOKEN_LIFE = 3600
ISSUER = "user-service"
SECRET = os.environ.get("JWT_SECRET", "the-demo-secret-that-everyone-knows").encode()
"""What tokens are signed with; the gateway verifies them with the same."""

SCHEMA = """
CREATE TABLE roles (name TEXT PRIMARY KEY, description TEXT NOT NULL);
CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL REFERENCES roles (name),
    password BLOB NOT NULL
);
"""


def digest(email: str, password: str) -> bytes:
    """Return what is stored of a password, with the address as its salt."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), email.encode(), 10_000)


def seed_user(name: str, role: str) -> tuple[str, str, str, bytes]:
    """Return a user whose password is `demo`."""
    email = f"{name.lower()}@example.com"
    return name, email, role, digest(email, "demo")


service = Service(
    "user-service",
    port=9001,
    schema=SCHEMA,
    seed={
        "INSERT INTO roles VALUES (?, ?)": [("admin", "may do everything"), ("customer", "may place orders")],
        "INSERT INTO users (name, email, role, password) VALUES (?, ?, ?, ?)": [
            seed_user("Ada", "admin"),
            seed_user("Grace", "customer"),
            seed_user("Linus", "customer"),
        ],
    },
)
db = service.database


@service.route("GET", "/api/v1/users")
def list_users(request: Request) -> Answer:
    users = db.rows("SELECT id, name, email, role FROM users ORDER BY id LIMIT ?", request.limit)
    return Answer(document={"users": users})


@service.route("GET", "/api/v1/users/{id}")
def get_user(request: Request) -> Answer:
    return found(db.row("SELECT id, name, email, role FROM users WHERE id = ?", request.params["id"]))


@service.route("POST", "/api/v1/users")
def create_user(request: Request) -> Answer:
    given = request.document()
    name, email, role = text(given, "name"), text(given, "email"), text(given, "role", "customer")
    if not db.row("SELECT name FROM roles WHERE name = ?", role):
        raise Refusal(400, "unknown-role", f"there is no role {role!r}")
    password = digest(email, text(given, "password", "demo"))
    insert = "INSERT INTO users (name, email, role, password) VALUES (?, ?, ?, ?)"
    try:
        user_id = db.write(insert, name, email, role, password).lastrowid
    except sqlite3.IntegrityError as error:
        raise Refusal(409, "email-taken", f"{email} has a user already") from error
    user = {"id": user_id, "name": name, "email": email, "role": role}
    return Answer(201, user, {"Location": f"/api/v1/users/{user_id}"})


@service.route("DELETE", "/api/v1/users/{id}")
def delete_user(request: Request) -> Answer:
    if not db.write("DELETE FROM users WHERE id = ?", request.params["id"]).rowcount:
        raise Refusal(404, "not-found", "there is no such user")
    return Answer(204)


@service.route("GET", "/api/v1/roles")
def list_roles(request: Request) -> Answer:
    return Answer(document={"roles": db.rows("SELECT * FROM roles ORDER BY name LIMIT ?", request.limit)})


@service.route("GET", "/api/v1/roles/{name}")
def get_role(request: Request) -> Answer:
    return found(db.row("SELECT * FROM roles WHERE name = ?", request.params["name"]))


@service.route("POST", "/api/v1/auth/login")
def log_in(request: Request) -> Answer:
    given = request.document()
    email, password = text(given, "email"), text(given, "password")
    user = db.row("SELECT * FROM users WHERE email = ?", email)
    if not hmac.compare_digest(user.get("password", b""), digest(email, password)):
        raise Refusal(401, "wrong-credentials", "no user has this address and password")
    claims = {
        "iss": ISSUER,
        "sub": str(user["id"]),
        "email": email,
        "roles": [user["role"]],
        "exp": int(time.time()) + TOKEN_LIFE,
    }
    return Answer(document={"token": sign(claims), "token_type": "Bearer", "expires_in": TOKEN_LIFE})


@service.route("GET", "/api/v1/auth/me")
def who_am_i(request: Request) -> Answer:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    claims = verify(token) if scheme.lower() == "bearer" else {}
    if claims.get("exp", 0) < time.time():
        raise Refusal(401, "bad-token", "log in at /api/v1/auth/login first", {"WWW-Authenticate": "Bearer"})
    return found(db.row("SELECT id, name, email, role FROM users WHERE id = ?", claims["sub"]))


def encode(data: bytes) -> str:
    """Return base64url without padding, as in a JSON Web Token (RFC 7515)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signature(message: str) -> str:
    """Return the HS256 signature of the first two parts of a token."""
    return encode(hmac.digest(SECRET, message.encode(), "sha256"))


def sign(claims: dict[str, Any]) -> str:
    """Return a JSON Web Token."""
    head = {"alg": "HS256", "typ": "JWT"}
    message = ".".join(encode(json.dumps(part).encode()) for part in (head, claims))
    return f"{message}.{signature(message)}"


def verify(token: str) -> dict[str, Any]:
    """Return the claims of a token that this service signed, or none."""
    message, _, signed = token.rpartition(".")
    if not hmac.compare_digest(signature(message).encode(), signed.encode()):
        return {}
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(message.partition(".")[2] + "=="))
    return claims


if __name__ == "__main__":
    service.main()
