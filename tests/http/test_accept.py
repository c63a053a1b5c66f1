from __future__ import annotations

import pytest

from portico.http.accept import qualities

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "html", "json"),
    [
        ("", 0, 0),
        ("*/*", 1, 1),
        ("text/html", 1, 0),
        ("TEXT/HTML", 1, 0),
        ("text/*", 1, 0),
        (BROWSER, 1, 0.8),
        ("application/json, text/html;q=0.9", 0.9, 1),
        ("text/html;q=0, */*", 0, 1),
        ("text/html ; q=0.5 , application/json;q=0.25", 0.5, 0.25),
        ("text/*;q=0.3, text/html;q=0.7, */*;q=0.1", 0.7, 0.1),
        ("text/html;level=1;q=0.4", 0.4, 0),
        ("text/html;Q=0.4", 0.4, 0),
        ("text/html;q=2", 0, 0),
        ("text/html;q=x, application/json", 0, 1),
        ("text/html;q=0.1, text/html;q=0.6", 0.6, 0),
        (",,;q=1,text/html", 1, 0),
    ],
)
def test_the_most_exact_range_says_how_much_a_type_is_wanted(accept: str, html: float, json: float) -> None:
    assert qualities(accept, ["text/html", "application/json"]) == [html, json]
