"""Consumers with passwords, and the policy that knows them by these, with a clock in the test's hand."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import Any

import argon2
import bcrypt

from portico.config.consumers import Consumer, Consumers
from portico.plugin import Client, Refusal, User
from portico.policies.basic_auth import BasicAuth, BasicAuthPolicy, Passwords, matches
from portico.state.memory import MemoryStore
from tests.harness.policies import request_of
from tests.harness.policy import TestEnv

QUICK = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
LONG = "p" * 73


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


KNOWN = Consumers(
    [
        Consumer("ada", password=QUICK.hash("swordfish"), roles=frozenset("r")),
        Consumer("zoë", password=QUICK.hash("paß:wörd ")),
        Consumer("bob", password=hashed("hunter2")),
        Consumer("long", password=hashed(LONG[:72])),
        Consumer("empty", password=QUICK.hash("")),
        Consumer("keys-only"),
    ]
)


def basic(text: str | bytes, scheme: str = "Basic") -> str:
    data = text if isinstance(text, bytes) else text.encode()
    return f"{scheme} {base64.b64encode(data).decode()}"


class Counting(Passwords):
    """Counts what it compares."""

    def __init__(self) -> None:
        super().__init__(self.counted)
        self.compared: list[str] = []

    def counted(self, hash_: str, password: bytes) -> bool:
        self.compared.append(hash_)
        return matches(hash_, password)


class World:
    """A policy, and what is around it."""

    def __init__(
        self,
        known: Any = KNOWN,
        passwords: Passwords | None = None,
        store: MemoryStore | None = None,
        **settings: object,
    ) -> None:
        self.policy = BasicAuthPolicy(BasicAuth.model_validate(settings))
        self.passwords = passwords or Counting()
        self.now = 1000.0
        env = TestEnv()
        self.store = env.store = store or MemoryStore(lambda: self.now)
        env.spawn = self.spawn  # type: ignore[method-assign]
        env.consumers = known
        env.share = lambda *_: self.passwords  # type: ignore[method-assign]
        env.clock = lambda: self.now  # type: ignore[method-assign]
        self.policy.setup(env)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        with suppress(StopIteration):
            work.send(None)  # a store in memory lets nobody wait

    async def found(self, *values: str, address: str = "") -> User | Refusal | None:
        client = Client(address, 1, 80, "http") if address else None
        headers = (("Authorization", value) for value in values)
        found = self.policy.identify(request_of("GET", *headers, client=client))
        return await found if isinstance(found, Awaitable) else found
