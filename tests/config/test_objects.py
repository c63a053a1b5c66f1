"""Which object of a configuration a place is in."""

from __future__ import annotations

from portico.config.document import read
from portico.config.findings import Place
from portico.config.objects import Objects
from portico.config.source import TextSource

FILE = """services:
  a: {url: "http://a"}
  b:
    url: "http://b"
consumers: {ada: {keys: [x]}}
routes:
  - {name: first, path: /one, service: a}
  - path: [/two, /three]
    service: b
  - {service: b}
  - nonsense
include: more.yaml
metrics: off
"""
MORE = "routes:\n  - {path: /four, service: a}\n"


def test_a_place_is_in_what_begins_last_ahead_of_it() -> None:
    objects = Objects(read(TextSource({"a.yaml": FILE, "more.yaml": MORE}, start="a.yaml"), {}).root)
    told = {line: objects.at(Place("a.yaml", line, 80)) for line in range(1, FILE.count("\n") + 1)}
    assert told == {
        1: "services",
        2: "service a",
        3: "service b",
        4: "service b",
        5: "consumer ada",
        6: "routes",
        7: "route first",
        8: "route /two",
        9: "route /two",
        10: "route 3",
        11: "route 4",
        12: "route 4",
        13: "metrics",
    }
    assert objects.at(Place("more.yaml", 2, 6)) == "route /four"
    assert objects.at(Place("a.yaml", 2, 1)) == "services"
    assert objects.at(Place("other.yaml", 1, 1)) == ""


def test_a_secret_is_not_told() -> None:
    texts = {"a.yaml": "routes:\n  - {name: '${file:name}', path: /x}\n", "name": "s"}
    root = read(TextSource(texts, start="a.yaml"), {}).root
    assert Objects(root).at(Place("a.yaml", 2, 9)) == "route /x"
