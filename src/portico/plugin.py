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
from portico.jose.compact import NotTaken, json_object
from portico.jose.introspection import DescribedEndpoint, Taken, basic_credentials, said_of_token, token_of
from portico.jose.keys import Algorithm, KeySet, UnusableKey
from portico.jose.provider import WELL_KNOWN, KeyUrl, ProviderKeys, issuers_of, target_of
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
from portico.policy.lambda_authorizer import (
    DENIED,
    FixedVerdict,
    PolicyVerdict,
    RouteArn,
    UserOf,
    cookies_of,
    event_of,
    parameters_of,
    read_iam,
    read_simple,
)
from portico.policy.threads import Threads, TooManyCalls
from portico.policy.told import FORWARDED_HEADERS, MOST_TOLD, Fields, Identity, fields_told
from portico.policy.verdicts import NO_ANSWER, Memory, NoVerdict, Questions, Trouble, settings_print
from portico.routing.matcher import ALLOWED_METHODS
from portico.routing.preflight import UNANSWERED_PREFLIGHT

__all__ = [
    "ADMITTED",
    "ALLOWED_METHODS",
    "DECODABLE",
    "DENIED",
    "FORWARDED_HEADERS",
    "HOP_BY_HOP",
    "IDENTITY",
    "LOCAL_NETWORKS",
    "MAX_CODINGS",
    "MOST_TOLD",
    "NO_ANSWER",
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
    "ClaimedUser",
    "Client",
    "Condition",
    "ConditionError",
    "ConfigError",
    "Consumer",
    "ConsumerLookup",
    "Credential",
    "DescribedEndpoint",
    "Duration",
    "Endpoint",
    "Env",
    "Exchange",
    "Fields",
    "FilePath",
    "FixedKeys",
    "FixedVerdict",
    "Found",
    "Handler",
    "HeaderBlock",
    "HeaderName",
    "HeaderValue",
    "Headers",
    "Identity",
    "Key",
    "KeySet",
    "KeyUrl",
    "Keys",
    "MalformedContent",
    "Memory",
    "Method",
    "Negotiation",
    "NoVerdict",
    "NotTaken",
    "OneOrMany",
    "Outcome",
    "Policy",
    "PolicyConfig",
    "PolicyVerdict",
    "PorticoError",
    "Problem",
    "ProviderKeys",
    "Questions",
    "Refusal",
    "Request",
    "RequestError",
    "Response",
    "RouteArn",
    "RouteInfo",
    "Secret",
    "ServiceHealth",
    "ServiceName",
    "Shorthand",
    "Size",
    "Stage",
    "StatusCode",
    "Taken",
    "TargetHealth",
    "Template",
    "Texts",
    "Threads",
    "TokenRules",
    "TokenVerifier",
    "TooManyCalls",
    "Trouble",
    "UnusableKey",
    "UpstreamError",
    "User",
    "UserOf",
    "basic_credentials",
    "bearer_token",
    "claim_at",
    "codings_of",
    "cookies_of",
    "decoded",
    "digest_of",
    "encode_at_once",
    "encoded",
    "escape_for",
    "event_of",
    "fields_told",
    "issuers_of",
    "json_object",
    "may_be_recoded",
    "note_refusal",
    "parameters_of",
    "read_iam",
    "read_simple",
    "recoded",
    "said_of_token",
    "settings_print",
    "stands_twice",
    "target_of",
    "token_of",
    "unknown_user",
    "vary_by_encoding",
    "words_at",
]
