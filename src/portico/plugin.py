"""The public face for authors of policies and endpoints; semantic versioning applies to this module, and to
`portico.testing`, in which they are tested.

Everything that the built-in policies use is here, and nothing else of Portico is theirs to import either.
"""

from portico.config.addresses import LOCAL_NETWORKS, Cidr
from portico.config.consumers import ApiKeys, Consumer, Credential, digest_of
from portico.config.forms import Off, OneOrMany, SecretMembers, Shorthand
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
    RequestTimeout,
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
from portico.http.headers import HOP_BY_HOP, HeaderBlock, Headers, spelled
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
from portico.jose.signer import TokenSigner, published_key
from portico.jose.verifier import FixedKeys, Keys, TokenVerifier
from portico.observe.exchange import Exchange, Outcome
from portico.observe.health import BreakerState, ServiceHealth, TargetHealth
from portico.policy.attempts import Failures, Recent, origin_of
from portico.policy.authentication import (
    ADMITTED,
    Admitted,
    Authenticator,
    AuthenticatorConfig,
    Found,
    Refusal,
    note_refusal,
    shown,
    unknown_user,
)
from portico.policy.base import Endpoint, Env, Policy, PolicyConfig, RouteInfo, Stage
from portico.policy.condition import Condition, ConditionError
from portico.policy.consumers import ConsumerLookup
from portico.policy.reserved import ReservedHeaders, check_reservable
from portico.routing.matcher import ALLOWED_METHODS
from portico.routing.preflight import UNANSWERED_PREFLIGHT
from portico.signatures.base import DERIVED_COMPONENTS
from portico.signatures.digest import ContentDigest
from portico.signatures.fields import NotSigned
from portico.signatures.keys import SignatureAlgorithm, SignatureKey
from portico.signatures.nonces import Nonces, NoncesFull
from portico.signatures.verifier import SignatureRules, SignatureVerifier, Signed, invitation_to_sign
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
    "DECODABLE",
    "DERIVED_COMPONENTS",
    "HOP_BY_HOP",
    "IDENTITY",
    "LOCAL_NETWORKS",
    "MAX_CODINGS",
    "SLICE",
    "TWICE",
    "UNANSWERED_PREFLIGHT",
    "UNAVAILABLE",
    "UNIT",
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
    "ClientCertificate",
    "Condition",
    "ConditionError",
    "ConfigError",
    "Consumer",
    "ConsumerLookup",
    "ContentDigest",
    "Credential",
    "DnsPattern",
    "Duration",
    "EmailPattern",
    "Endpoint",
    "Env",
    "Exchange",
    "Failures",
    "FilePath",
    "Fingerprint",
    "FixedKeys",
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
    "MalformedContent",
    "Method",
    "NamePattern",
    "Negotiation",
    "Nonces",
    "NoncesFull",
    "NotSigned",
    "NotTaken",
    "Off",
    "OneOrMany",
    "Outcome",
    "Policy",
    "PolicyConfig",
    "PorticoError",
    "Problem",
    "ProviderKeys",
    "Recent",
    "Refusal",
    "Request",
    "RequestError",
    "RequestTimeout",
    "ReservedHeaders",
    "Response",
    "RouteInfo",
    "Secret",
    "SecretMembers",
    "ServiceHealth",
    "ServiceName",
    "Shorthand",
    "SignatureAlgorithm",
    "SignatureKey",
    "SignatureRules",
    "SignatureVerifier",
    "Signed",
    "Size",
    "Stage",
    "StatusCode",
    "TargetHealth",
    "Template",
    "Texts",
    "TokenRules",
    "TokenSigner",
    "TokenVerifier",
    "UnreadableCertificate",
    "UnusableKey",
    "UpstreamError",
    "UriPattern",
    "User",
    "bearer_token",
    "certificate_reader",
    "check_reservable",
    "claim_at",
    "codings_of",
    "decoded",
    "digest_of",
    "dns_pattern",
    "email_pattern",
    "encode_at_once",
    "encoded",
    "escape_for",
    "invitation_to_sign",
    "may_be_recoded",
    "name_pattern",
    "note_refusal",
    "origin_of",
    "published_key",
    "recoded",
    "shown",
    "spelled",
    "stands_twice",
    "unknown_user",
    "uri_pattern",
    "vary_by_encoding",
    "words_at",
]
