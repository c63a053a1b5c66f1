"""An authorization server that authlib makes, with introspection (RFC 7662): `authorization_server.py PORT`.

Its one client, with an odd name and an odd secret, gets tokens by its credentials, revokes them (RFC 7009), and is told
of them.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from flask import Flask, jsonify, request

CLIENT, SECRET = "portico:ä", "%41&=very-secret"


class Client(ClientMixin):
    def get_client_id(self) -> str:
        return CLIENT

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in {"client_secret_basic", "client_secret_post"}

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class Token(TokenMixin):
    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        self.revoked = False
        self.expires = int(time.time()) + said["expires_in"]

    def check_client(self, client: Client) -> bool:
        return True

    def is_expired(self) -> bool:
        return time.time() >= self.expires

    def is_revoked(self) -> bool:
        return self.revoked


TOKENS: dict[str, Token] = {}


class Introspection(IntrospectionEndpoint):
    CLIENT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")

    def query_token(self, token: str, hint: str | None) -> Token | None:
        return TOKENS.get(token)

    def check_permission(self, token: Token, client: Client, request: object) -> bool:
        return True

    def introspect_token(self, token: Token) -> dict[str, Any]:
        said = token.said
        return {
            "active": True,
            "client_id": CLIENT,
            "token_type": said["token_type"],
            "scope": said["scope"],
            "sub": "ada",
            "username": None,
            "exp": token.expires,
        }


class Revocation(RevocationEndpoint):
    def query_token(self, token: str, hint: str | None) -> Token | None:
        return TOKENS.get(token)

    def revoke_token(self, token: Token, request: object) -> None:
        token.revoked = True


def main(port: int) -> None:
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    app = Flask(__name__)
    server = AuthorizationServer(
        app,
        query_client=lambda name: Client() if name == CLIENT else None,
        save_token=lambda token, _: TOKENS.update({token["access_token"]: Token(token)}),
    )
    server.register_grant(ClientCredentialsGrant)
    server.register_endpoint(Introspection)
    server.register_endpoint(Revocation)
    app.add_url_rule("/token", "token", server.create_token_response, methods=["POST"])
    for name in (Introspection.ENDPOINT_NAME, Revocation.ENDPOINT_NAME):
        app.add_url_rule(f"/{name}", name, lambda name=name: server.create_endpoint_response(name), methods=["POST"])

    @app.get("/.well-known/oauth-authorization-server")
    def description() -> Any:
        issuer = request.host_url.rstrip("/")
        return jsonify(issuer=issuer, introspection_endpoint=f"{issuer}/introspection")

    app.run("127.0.0.1", port)


if __name__ == "__main__":
    main(int(sys.argv[1]))
