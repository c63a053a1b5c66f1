"""The public face for authors of policies and endpoints; semantic versioning applies to this module, and to
`portico.testing`, in which they are tested.

Everything that the built-in policies use is here, and nothing else of Portico is theirs to import either.
"""

from portico.config.addresses import LOCAL_NETWORKS, Cidr
from portico.config.consumers import ApiKeys, Consumer, Credential, digest_of
from portico.config.forms import OneOrMany, Shorthand
from portico.config.values import (
    BadValue,
    Duration,
    FilePath,
    HeaderName,
    HeaderValue,
    Method,
    Secret,
    ServiceName,
    Size,
    StatusCode,
)
from portico.errors import (
    BodyTooLarge,
    BodyTruncated,
    ConfigError,
    MalformedContent,
    PorticoError,
    RequestError,
    StoreUnavailable,
    UpstreamError,
)
from portico.http.body import Body
from portico.http.coding import (
    DECODABLE,
    MAX_CODINGS,
    SLICE,
    codings_of,
    decoded,
    encode_at_once,
    encoded,
    may_be_recoded,
    recoded,
)
from portico.http.headers import HOP_BY_HOP, HeaderBlock, Headers
from portico.http.message import Client, Handler, Key, Request, Response
from portico.http.negotiation import IDENTITY, AcceptEncoding, Negotiation, vary_by_encoding
from portico.http.problem import Problem
from portico.http.template import Template, escape_for
from portico.http.user import USER, User
from portico.jose.bearer import TWICE, BearerConfig, ClaimedUser, Texts, bearer_token, stands_twice
from portico.jose.compact import NotTaken
from portico.jose.keys import Algorithm, KeySet, UnusableKey
from portico.jose.provider import WELL_KNOWN, KeyUrl, ProviderKeys
from portico.jose.rules import UNAVAILABLE, TokenRules, claim_at, words_at
from portico.jose.verifier import FixedKeys, Keys, TokenVerifier
from portico.observe.exchange import Exchange, Outcome
from portico.observe.health import BreakerState, ServiceHealth, TargetHealth
from portico.policy.authentication import (
    ADMITTED,
    Admitted,
    Authenticator,
    AuthenticatorConfig,
    Found,
    Refusal,
    note_refusal,
    unknown_user,
)
from portico.policy.base import Endpoint, Env, Policy, PolicyConfig, RouteInfo, Stage
from portico.policy.condition import Condition, ConditionError
from portico.policy.consumers import ConsumerLookup
from portico.routing.matcher import ALLOWED_METHODS
from portico.routing.preflight import UNANSWERED_PREFLIGHT
from portico.state.check import LimitCheck, OnStoreFailure
from portico.state.limits import FixedWindow, Limit, Limits, Rate, SlidingWindow, Verdict
from portico.state.store import LARGEST_VALUE, Claim, Space, Store

__all__ = [
    "ADMITTED",
    "ALLOWED_METHODS",
    "DECODABLE",
    "HOP_BY_HOP",
    "IDENTITY",
    "LARGEST_VALUE",
    "LOCAL_NETWORKS",
    "MAX_CODINGS",
    "SLICE",
    "TWICE",
    "UNANSWERED_PREFLIGHT",
    "UNAVAILABLE",
    "USER",
    "WELL_KNOWN",
    "AcceptEncoding",
    "Admitted",
    "Algorithm",
    "ApiKeys",
    "Authenticator",
    "AuthenticatorConfig",
    "BadValue",
    "BearerConfig",
    "Body",
    "BodyTooLarge",
    "BodyTruncated",
    "BreakerState",
    "Cidr",
    "Claim",
    "ClaimedUser",
    "Client",
    "Condition",
    "ConditionError",
    "ConfigError",
    "Consumer",
    "ConsumerLookup",
    "Credential",
    "Duration",
    "Endpoint",
    "Env",
    "Exchange",
    "FilePath",
    "FixedKeys",
    "FixedWindow",
    "Found",
    "Handler",
    "HeaderBlock",
    "HeaderName",
    "HeaderValue",
    "Headers",
    "Key",
    "KeySet",
    "KeyUrl",
    "Keys",
    "Limit",
    "LimitCheck",
    "Limits",
    "MalformedContent",
    "Method",
    "Negotiation",
    "NotTaken",
    "OnStoreFailure",
    "OneOrMany",
    "Outcome",
    "Policy",
    "PolicyConfig",
    "PorticoError",
    "Problem",
    "ProviderKeys",
    "Rate",
    "Refusal",
    "Request",
    "RequestError",
    "Response",
    "RouteInfo",
    "Secret",
    "ServiceHealth",
    "ServiceName",
    "Shorthand",
    "Size",
    "SlidingWindow",
    "Space",
    "Stage",
    "StatusCode",
    "Store",
    "StoreUnavailable",
    "TargetHealth",
    "Template",
    "Texts",
    "TokenRules",
    "TokenVerifier",
    "UnusableKey",
    "UpstreamError",
    "User",
    "Verdict",
    "bearer_token",
    "claim_at",
    "codings_of",
    "decoded",
    "digest_of",
    "encode_at_once",
    "encoded",
    "escape_for",
    "may_be_recoded",
    "note_refusal",
    "recoded",
    "stands_twice",
    "unknown_user",
    "vary_by_encoding",
    "words_at",
]
