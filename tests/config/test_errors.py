from __future__ import annotations

import pickle

import pytest

from portico.config.errors import Errors, ErrorText
from tests.config.kinds import cases, config_of, findings_of, said_of

ROUTE = "routes: [{respond: {status: 200}, errors: %s}]"


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("kong", Errors(shape="kong")),
        ("{shape: simple, html: off}", Errors(shape="simple", html="off")),
        ("{'404': gone}", Errors(texts={"404": ErrorText(body="gone")})),
        ("{404: gone, 5xx: off}", Errors(texts={"404": ErrorText(body="gone"), "5xx": None})),
        (
            "{4xx: {content_type: text/html, body: '<b>{{ path }}'}}",
            Errors(texts={"4xx": ErrorText(body="<b>{{ path }}", content_type="text/html")}),
        ),
        ("", None),
    ],
)
def test_errors_of_the_file_a_service_and_a_route(text: str, errors: Errors | None) -> None:
    config = config_of(f"errors: {text}\nservices:\n  a:\n    url: http://a\n    errors: {text}\n")
    assert (config.errors, config.services["a"].errors) == (errors, errors)
    route = config_of(f"routes:\n  - respond: {{status: 200}}\n    errors: {text}\n").routes[0]
    assert route.errors == errors
    assert pickle.loads(pickle.dumps(config)) == config


CASES = """
errors: kng
    9 shape: expected 'problem', 'simple', 'fastapi', 'kong' or 'aws', not 'kng'
    hint: did you mean 'kong'?
errors: {shap: kong}
    10 unknown key 'shap' in errors
    hint: did you mean 'shape'?
errors: {texts: {}}
    10 unknown key 'texts' in errors
    hint: errors can have shape and html
errors: {html: maybe}
    16 html: expected 'on' or 'off', not 'maybe'
errors: [kong]
    9 shape: expected 'problem', 'simple', 'fastapi', 'kong' or 'aws', not a list
errors: {200: fine}
    10 errors: 200 is no status of an error
    hint: write 404, or 4xx for all of them
errors: {44: four}
    10 errors: 44 is no status of an error
    hint: write 404, or 4xx for all of them
errors: {404: {bdy: x}}
    15 errors 404 needs 'body'
    hint: Its text.
    16 unknown key 'bdy' in errors 404
    hint: did you mean 'body'?
errors: {404: {body: x, content_type: "a\\nb"}}
    39 content_type: this cannot stand in a header
    hint: leave out line breaks and characters beyond Latin-1
"""


@pytest.mark.parametrize(("text", "said"), cases(CASES))
def test_mistakes_have_a_place(text: str, said: list[str]) -> None:
    assert said_of(findings_of(text)) == said


@pytest.mark.parametrize("form", ["'a {{ pth }}'", "{body: 'a {{ pth }}'}"])
def test_a_place_that_is_not_known_has_one_too(form: str) -> None:
    (finding,) = findings_of(f"errors: {{404: {form}}}")
    assert finding.column == 9 + 6 + form.index("'") if form.startswith("'") else 22
    assert finding.message.startswith("body: {{ pth }} is not known; known are status, title, detail, type, method")


def test_a_route_s_mistakes_are_told_at_the_route() -> None:
    (finding,) = findings_of(ROUTE % "simpel")
    assert (finding.line, finding.column, finding.hint) == (1, 1 + ROUTE.index("%s"), "did you mean 'simple'?")
