"""The public face for authors of policies and endpoints; semantic versioning applies to this module, and to
`portico.testing`, in which they are tested.

Everything that the built-in policies use is here, and nothing else of Portico is theirs to import either.
"""

from portico import caching, response_cache
from portico.config.addresses import LOCAL_NETWORKS, Cidr, Origin
from portico.config.consumers import ApiKeys, Consumer, Credential, digest_of
from portico.config.forms import Nothing, Off, OneOrMany, SecretMembers, Shorthand
from portico.config.values import (
    BadValue,
    Duration,
    FilePath,
    HeaderName,
    HeaderValue,
    Method,
    Secret,
    ServiceName,
    Share,
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
    RequestTimeout,
    StoreUnavailable,
    UpstreamError,
)
from portico.http.body import Body, BodySource
from portico.http.coding import (
    MAX_CODINGS,
    SLICE,
    codings_of,
    decoded,
    encode_at_once,
    encoded,
    may_be_recoded,
    recoded,
)
from portico.http.cookies import with_cookies
from portico.http.correlation import CORRELATION_ID
from portico.http.headers import HOP_BY_HOP, HeaderBlock, Headers, spelled
from portico.http.message import Client, Handler, Key, Request, Response
from portico.http.negotiation import IDENTITY, AcceptEncoding, Negotiation, vary_by_encoding
from portico.http.problem import Problem
from portico.http.scraped import scraped
from portico.http.template import Template, escape_for
from portico.http.user import USER, User
from portico.idempotency import LARGEST_ANSWER, KeyReader, MalformedKey, Once, OnceRules, Standing, fingerprint
from portico.jose.bearer import BearerConfig, ClaimedUser, Texts
from portico.jose.compact import NotTaken, json_object
from portico.jose.introspection import DescribedEndpoint, Taken, basic_credentials, said_of_token, token_of
from portico.jose.keys import Algorithm, KeySet, UnusableKey
from portico.jose.provider import KeyUrl, ProviderKeys, issuers_of, target_of
from portico.jose.rules import TokenRules, claim_at
from portico.jose.signer import TokenSigner, published_key
from portico.jose.verifier import BearerReader, FixedKeys, Keys, TokenVerifier
from portico.limiting.ahead import TakenAhead
from portico.limiting.budgets import Budget, Budgets, Check, budget_of, checks_of, prefix_of
from portico.limiting.gate import Counted, Gate, store_unavailable
from portico.limiting.periods import Periods
from portico.limiting.periods import Unit as PeriodUnit
from portico.limiting.settings import (
    LimitingConfig,
    LimitList,
    LimitSettings,
    Plan,
    Tier,
    remarks_on_limits,
    remarks_on_nobody,
)
from portico.limiting.told import Terms, Told
from portico.observe.exchange import Exchange, Outcome, Result, ResultKind
from portico.observe.health import BreakerState, ServiceHealth, TargetHealth
from portico.oidc.party import LoginPaths, PartySettings, ProviderSettings, RelyingParty, SessionSettings
from portico.oidc.provider import ClientAuth, Registration
from portico.oidc.renewal import Relay
from portico.oidc.session import SessionLifetime
from portico.policy.attempts import Failures, Recent, SharedFailures, origin_of
from portico.policy.authentication import note_refusal, shown, unknown_user
from portico.policy.authenticator import ADMITTED, Admitted, Authenticator, AuthenticatorConfig, Found, Refusal
from portico.policy.base import Endpoint, Env, Policy, PolicyConfig, RouteInfo, Stage
from portico.policy.callers import CallerKey, KeyParts
from portico.policy.condition import Condition, ConditionError, Expression
from portico.policy.consumers import ConsumerLookup, ConsumerUsers, LookupFailed
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
from portico.policy.reserved import ReservedHeaders, check_reservable
from portico.policy.threads import Threads, TooManyCalls
from portico.policy.told import FORWARDED_HEADERS, Fields, Identity, fields_told
from portico.policy.verdicts import NO_ANSWER, Memory, NoVerdict, Questions, Trouble, settings_print
from portico.routing.matcher import ALLOWED_METHODS
from portico.routing.preflight import UNANSWERED_PREFLIGHT
from portico.signatures.base import DERIVED_COMPONENTS
from portico.signatures.digest import ContentDigest
from portico.signatures.fields import NotSigned
from portico.signatures.keys import SignatureAlgorithm, SignatureKey
from portico.signatures.nonces import Nonces, NoncesFull, SharedNonces
from portico.signatures.verifier import SignatureRules, SignatureVerifier, Signed, invitation_to_sign
from portico.state.board import Counter
from portico.state.check import LimitCheck, OnStoreFailure
from portico.state.limits import FixedWindow, Limit, Limits, Rate, SlidingWindow, Total, Verdict
from portico.state.purges import LONGEST_KEPT, Purges
from portico.state.semaphore import NoPlace, Place, SemaphoreRules, Semaphores, Uncounted
from portico.state.store import LARGEST_VALUE, Claim, Space, Store
from portico.x509.certificate import COMMON_NAME, UNIT, ClientCertificate, UnreadableCertificate, certificate_reader
from portico.x509.patterns import (
    DnsPattern,
    EmailPattern,
    Fingerprint,
    NamePattern,
    UriPattern,
    dns_pattern,
    email_pattern,
    name_pattern,
    uri_pattern,
)

__all__ = [
    "ADMITTED",
    "ALLOWED_METHODS",
    "COMMON_NAME",
    "CORRELATION_ID",
    "DENIED",
    "DERIVED_COMPONENTS",
    "FORWARDED_HEADERS",
    "HOP_BY_HOP",
    "IDENTITY",
    "LARGEST_ANSWER",
    "LARGEST_VALUE",
    "LOCAL_NETWORKS",
    "LONGEST_KEPT",
    "MAX_CODINGS",
    "NO_ANSWER",
    "SLICE",
    "UNANSWERED_PREFLIGHT",
    "UNIT",
    "USER",
    "AcceptEncoding",
    "Admitted",
    "Algorithm",
    "ApiKeys",
    "Authenticator",
    "AuthenticatorConfig",
    "BadValue",
    "BearerConfig",
    "BearerReader",
    "Body",
    "BodySource",
    "BodyTooLarge",
    "BodyTruncated",
    "BreakerState",
    "Budget",
    "Budgets",
    "CallerKey",
    "Check",
    "Cidr",
    "Claim",
    "ClaimedUser",
    "Client",
    "ClientAuth",
    "ClientCertificate",
    "Condition",
    "ConditionError",
    "ConfigError",
    "Consumer",
    "ConsumerLookup",
    "ConsumerUsers",
    "ContentDigest",
    "Counted",
    "Counter",
    "Credential",
    "DescribedEndpoint",
    "DnsPattern",
    "Duration",
    "EmailPattern",
    "Endpoint",
    "Env",
    "Exchange",
    "Expression",
    "Failures",
    "Fields",
    "FilePath",
    "Fingerprint",
    "FixedKeys",
    "FixedVerdict",
    "FixedWindow",
    "Found",
    "Gate",
    "Handler",
    "HeaderBlock",
    "HeaderName",
    "HeaderValue",
    "Headers",
    "Identity",
    "Key",
    "KeyParts",
    "KeyReader",
    "KeySet",
    "KeyUrl",
    "Keys",
    "Limit",
    "LimitCheck",
    "LimitList",
    "LimitSettings",
    "LimitingConfig",
    "Limits",
    "LoginPaths",
    "LookupFailed",
    "MalformedContent",
    "MalformedKey",
    "Memory",
    "Method",
    "NamePattern",
    "Negotiation",
    "NoPlace",
    "NoVerdict",
    "Nonces",
    "NoncesFull",
    "NotSigned",
    "NotTaken",
    "Nothing",
    "Off",
    "OnStoreFailure",
    "Once",
    "OnceRules",
    "OneOrMany",
    "Origin",
    "Outcome",
    "PartySettings",
    "PeriodUnit",
    "Periods",
    "Place",
    "Plan",
    "Policy",
    "PolicyConfig",
    "PolicyVerdict",
    "PorticoError",
    "Problem",
    "ProviderKeys",
    "ProviderSettings",
    "Purges",
    "Questions",
    "Rate",
    "Recent",
    "Refusal",
    "Registration",
    "Relay",
    "RelyingParty",
    "Request",
    "RequestError",
    "RequestTimeout",
    "ReservedHeaders",
    "Response",
    "Result",
    "ResultKind",
    "RouteArn",
    "RouteInfo",
    "Secret",
    "SecretMembers",
    "SemaphoreRules",
    "Semaphores",
    "ServiceHealth",
    "ServiceName",
    "SessionLifetime",
    "SessionSettings",
    "Share",
    "SharedFailures",
    "SharedNonces",
    "Shorthand",
    "SignatureAlgorithm",
    "SignatureKey",
    "SignatureRules",
    "SignatureVerifier",
    "Signed",
    "Size",
    "SlidingWindow",
    "Space",
    "Stage",
    "Standing",
    "StatusCode",
    "Store",
    "StoreUnavailable",
    "Taken",
    "TakenAhead",
    "TargetHealth",
    "Template",
    "Terms",
    "Texts",
    "Threads",
    "Tier",
    "TokenRules",
    "TokenSigner",
    "TokenVerifier",
    "Told",
    "TooManyCalls",
    "Total",
    "Trouble",
    "Uncounted",
    "UnreadableCertificate",
    "UnusableKey",
    "UpstreamError",
    "UriPattern",
    "User",
    "UserOf",
    "Verdict",
    "basic_credentials",
    "budget_of",
    "caching",
    "certificate_reader",
    "check_reservable",
    "checks_of",
    "claim_at",
    "codings_of",
    "cookies_of",
    "decoded",
    "digest_of",
    "dns_pattern",
    "email_pattern",
    "encode_at_once",
    "encoded",
    "escape_for",
    "event_of",
    "fields_told",
    "fingerprint",
    "invitation_to_sign",
    "issuers_of",
    "json_object",
    "may_be_recoded",
    "name_pattern",
    "note_refusal",
    "origin_of",
    "parameters_of",
    "prefix_of",
    "published_key",
    "read_iam",
    "read_simple",
    "recoded",
    "remarks_on_limits",
    "remarks_on_nobody",
    "response_cache",
    "said_of_token",
    "scraped",
    "settings_print",
    "shown",
    "spelled",
    "store_unavailable",
    "target_of",
    "token_of",
    "unknown_user",
    "uri_pattern",
    "vary_by_encoding",
    "with_cookies",
]
