from __future__ import annotations

import json

import pytest

from portico.http.problem import Problem, reason


def test_all_members_in_order() -> None:
    problem = Problem(403, "country-not-allowed", "Not from here", "Allowed are DE, FR.", {"allowed": ["DE", "FR"]})
    document = json.loads(problem.render("/orders/1"))
    assert list(document.items()) == [
        ("type", "urn:portico:problem:country-not-allowed"),
        ("title", "Not from here"),
        ("status", 403),
        ("detail", "Allowed are DE, FR."),
        ("instance", "/orders/1"),
        ("allowed", ["DE", "FR"]),
    ]


def test_what_there_is_not_is_left_out_and_the_title_is_the_statuss() -> None:
    assert json.loads(Problem(404, "no-route").render("")) == {
        "type": "urn:portico:problem:no-route",
        "title": "Not Found",
        "status": 404,
    }


def test_text_from_the_client_cannot_leave_its_string() -> None:
    document = json.loads(Problem(400, "x", detail='"}\r\n<script>').render('/"'))
    assert document["detail"] == '"}\r\n<script>'
    assert document["instance"] == '/"'


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (200, "OK"),
        (431, "Request Header Fields Too Large"),
        (199, "Informational"),
        (299, "Success"),
        (399, "Redirect"),
        (499, "Client Error"),
        (599, "Server Error"),
    ],
)
def test_each_status_has_a_phrase(status: int, phrase: str) -> None:
    assert reason(status) == phrase
