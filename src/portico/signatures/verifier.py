"""From a request to who has signed it: what a signature must cover and say, and the answers to what does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from portico.http.headers import HeaderBlock, spelled
from portico.http.message import Request
from portico.policy.authenticator import Refusal
from portico.signatures.base import Message
from portico.signatures.fields import MAX_TEXT, NotSigned, Signature, Signatures, serialized
from portico.signatures.keys import SignatureKey

EXPIRED: Final = Refusal("signature-expired", "Signature expired", "the signature has expired")
"""The signature was made too long ago, or says itself that it is over."""
_OF_TARGET: Final = frozenset(("@authority", "@path", "@query"))
_IMPLIED: Final = (
    (frozenset(("@target-uri",)), _OF_TARGET | {"@scheme"}),
    (frozenset(("@request-target",)), frozenset(("@path", "@query"))),
    (_OF_TARGET, frozenset(("@target-uri",))),
)
"""What is covered by what is covered."""
_TEXTS: Final = ("keyid", "alg", "nonce", "tag")


def invalid(reason: str) -> Refusal:
    """Return the refusal of a signature; `reason` is for the log.

    The signature is not well formed, not by a key that is known, not over all that it has to cover, or not right.
    """
    return Refusal("invalid-signature", "Invalid signature", reason)


class _Expired(NotSigned):
    """A signature is too old."""


class _Wrong(NotSigned):
    """A signature is not one of its key."""


@dataclass(frozen=True, slots=True)
class SignatureRules:
    """What a signature must cover and say."""

    components: frozenset[str]
    """What must be covered."""
    content: bool = True
    """Whether content must be covered where there is some."""
    max_age: float = 300.0
    """Seconds since it was created."""
    leeway: float = 60.0
    """Seconds by which clocks may differ."""
    expires: bool = False
    """Whether it must say when it expires."""
    nonce: bool = False
    """Whether it must have a nonce."""
    tag: str | None = None
    label: str | None = None

    def until(self, signature: Signature, now: float) -> float:
        """Return until when a signature is good, which is now; raise NotSigned."""
        said = signature.parameters
        for name in _TEXTS:
            value = said.get(name, "-")
            if type(value) is not str or not 0 < len(value) <= MAX_TEXT:
                raise NotSigned(f"its {name} is no text, is empty, or too long")
        created, expires = (_time(said, name) for name in ("created", "expires"))
        if created is None:
            raise NotSigned("it does not say when it was created")
        if expires is None and self.expires:
            raise NotSigned("it does not say when it expires")
        if self.nonce and "nonce" not in said:
            raise NotSigned("it has no nonce")
        if created > now + self.leeway:
            raise NotSigned("it was created in the future")
        end = created + self.max_age
        until = (end if expires is None else min(end, expires)) + self.leeway
        if now >= until:
            raise _Expired
        return until

    def check_cover(self, signature: Signature, has_content: bool) -> None:
        """Raise NotSigned where a signature does not cover what it must."""
        covered = {component.name for component in signature.components if component.whole}
        for by, implied in _IMPLIED:
            if by <= covered:
                covered |= implied
        needed = self.components | {"content-digest"} if self.content and has_content else self.components
        if not needed <= covered:
            raise NotSigned(f"it does not cover {', '.join(sorted(needed - covered))}")


class Signed(NamedTuple):
    """A signature that is right."""

    key_id: str
    nonce: str | None
    until: float
    """When it is not good any more."""
    content: bool
    """Whether the content is covered, by its digest."""
    fields: frozenset[bytes]
    """The fields that it covers, in lower case."""

    def take_unsigned(self, request: Request) -> None:
        """Take from a request what a service may take for a field that is covered, though nobody has signed it: such
        as `X_Role` beside `X-Role`, and what follows the content."""
        covered = frozenset(map(spelled, self.fields))
        headers = request.headers
        for name in [name for name in headers.index if name not in self.fields and spelled(name) in covered]:
            headers.remove(name)
        request.body.refuse_trailers(covered.__contains__)


class SignatureVerifier:
    """Verifies signatures by some keys and some rules."""

    __slots__ = ("_keys", "_now", "_rules")

    def __init__(self, keys: Mapping[str, SignatureKey], rules: SignatureRules, now: Callable[[], float]) -> None:
        self._keys = keys
        self._rules = rules
        self._now = now

    def verify(self, request: Request) -> Signed | Refusal | None:
        """Return the first signature of a request that is good, or why none is; None where none is meant for this.

        One that is by a known key, and is wrong, is the last that is looked at: to find that out is what costs. The
        content is not looked at: what is covered of it is its digest.
        """
        try:
            signatures = Signatures.of(request.headers)
        except NotSigned as error:
            return invalid(str(error))
        if signatures is None:
            return None
        refusal: Refusal | None = None
        message = Message(request)
        for label in self._meant(signatures):
            try:
                return self._verified(signatures.read(label), message)
            except _Expired:
                refusal = refusal or EXPIRED
            except _Wrong as error:
                return invalid(str(error))
            except NotSigned as error:
                refusal = refusal or invalid(str(error))
        return refusal

    def _meant(self, signatures: Signatures) -> list[str]:
        label, tag = self._rules.label, self._rules.tag
        return [
            known
            for known in signatures.labels
            if label in (None, known) and (tag is None or signatures.tag(known) == tag)
        ]

    def _verified(self, signature: Signature, message: Message) -> Signed:
        """Return what a signature says, the cheap checks first; raise NotSigned."""
        said = signature.parameters
        until = self._rules.until(signature, self._now())
        key_id, nonce = said.get("keyid"), said.get("nonce")
        key = self._keys.get(key_id) if isinstance(key_id, str) else None
        if key is None or not isinstance(key_id, str):
            raise NotSigned("its key is not known")
        if said.get("alg", key.algorithm) != key.algorithm:
            raise NotSigned("its algorithm is not that of its key")
        self._rules.check_cover(signature, message.request.body.whole != b"")
        if not key.verify(message.base(signature), signature.value):
            raise _Wrong("it is wrong")
        fields = frozenset([name.encode() for name, _, _ in signature.components if name[0] != "@"])
        content = any(component.name == "content-digest" and component.whole for component in signature.components)
        return Signed(key_id, nonce if isinstance(nonce, str) else None, until, content, fields)


def _time(said: Mapping[str, object], name: str) -> int | None:
    value = said.get(name)
    if value is not None and (type(value) is not int or value < 0):
        raise NotSigned(f"its {name} is no time")
    return value


def invitation_to_sign(rules: SignatureRules, *, content: bool) -> HeaderBlock:
    """Return the field that says how to sign (RFC 9421 section 5.1), for requests with content or without."""
    names = [*sorted(rules.components), *(("content-digest",) if content else ())]
    said: dict[str, object] = {"created": True}
    if rules.expires:
        said["expires"] = True
    if rules.tag is not None:
        said["tag"] = rules.tag
    items: list[tuple[str, dict[str, object]]] = [(name, {}) for name in dict.fromkeys(names)]
    text = serialized({rules.label or "sig": (items, said)})
    return HeaderBlock([(b"Accept-Signature", text.encode("ascii"))])
