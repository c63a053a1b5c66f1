from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from portico.config import TextSource, read, report
from portico.config.compose import resolve
from portico.config.document import Document
from portico.config.nodes import Plain, plain
from tests.config.kinds import check_golden


def document(text: str | bytes, **environment: str) -> Document:
    return read(TextSource({"portico.yaml": text}), environment)


def tree(text: str, **environment: str) -> Plain:
    result = document(text, **environment)
    assert result.findings == ()
    return plain(result.root)


def said(text: str | bytes) -> str:
    result = document(text)
    assert result.findings
    return report(result.findings)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("off", "off"), ("on", "on"), ("no", "no"), ("yes", "yes"), ("y", "y"), ("tRUE", "tRUE"),
        ("12", 12), ("-3", -3), ("+3", 3), ("0755", 755), ("0o17", 15), ("0x1F", 31), ("1_000", "1_000"),
        ("1:30", "1:30"), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-.inf", -math.inf),
        ("2026-11-20", "2026-11-20"), ("1.2.3", "1.2.3"), ("=", "="), ("9" * 101, "9" * 101),
    ],
)  # fmt: skip
def test_scalars_mean_what_they_do_in_yaml_1_2(text: str, value: object) -> None:
    resolved = resolve(text)
    assert resolved == (value if len(text) < 100 else float(text))
    assert type(resolved) is type(value if len(text) < 100 else 1.0)


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(resolve(".nan"))  # type: ignore[arg-type]


def test_quoted_scalars_are_texts() -> None:
    assert tree('{a: "true", b: \'1\', c: !!str 1, e: !!int "3", g: !!float 1}\n') == {
        "a": "true",
        "b": "1",
        "c": "1",
        "e": 3,
        "g": 1,
    }


def test_keys_are_their_text() -> None:
    assert tree("{200: a, on: b, true: c, null: d}") == {"200": "a", "on": "b", "true": "c", "null": "d"}


def test_places_are_counted_as_editors_do() -> None:
    result = document("routes:\n  - path: [/ä, '/b']\n    service: x\n")
    assert str(result.place("routes", 0)) == "portico.yaml:2:5"
    assert str(result.place("routes", 0, "path", 1)) == "portico.yaml:2:16"
    assert str(result.place("routes", 0, "service")) == "portico.yaml:3:14"
    assert str(result.place("routes", 0, "methods")) == "portico.yaml:2:5"
    assert str(result.place("routes", 7, "path")) == "portico.yaml:2:3"


def test_anchors_and_aliases() -> None:
    assert tree("a: &x [1, 2]\nb: *x\nc: {<<: {p: 1, q: 2}, q: 3}\nd: {<<: [{p: 1}, {p: 2, r: 3}]}\n") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"q": 3, "p": 1},
        "d": {"p": 1, "r": 3},
    }
    assert tree("base: &b {x: 1}\nmore: {<<: *b, y: 2}\n&k key: 1\nother: {*k : 2}\n") == {
        "base": {"x": 1},
        "more": {"y": 2, "x": 1},
        "key": 1,
        "other": {"key": 2},
    }


def test_aliases_cannot_multiply_without_bound() -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    text = "\n".join(["l0: &l0 [x]", *levels])
    assert said(text) == "portico.yaml:7:50: the file has more than 2000000 values (hint: do its aliases multiply?)\n"


MISTAKES: dict[str, str | bytes] = {
    "a tab": "a:\n\tb: 1\n",
    "a tab after spaces": "a:\n  b: 1\n\tc: 2\n",
    "a colon": "a: b: c",
    "indentation": "a:\n  - x\n b: 2",
    "an open bracket": "a: [1, 2\nb: 1\n",
    "an open bracket at the end": "a: [1,\n",
    "an open quote": "a: 1\nb: 'x\nc: 2\n",
    "text after a quote": "a: 'x' y",
    "an unquoted substitution": "a: {x: ${Y}}",
    "a bracket in a text": "a: {path: /users/{id}, service: x}",
    "a colon in brackets": "a: [:80]",
    "a colon at the end in brackets": "a: {b: c:}",
    "no space after a colon": "a:\n - b: c\n   d:e\n - b: c\n",
    "a reserved character": "a: @x",
    "a closing bracket": "a: }",
    "an asterisk": "a: *.example.com",
    "an escape": 'a: "\\d"',
    "a missing item": "- a\nb: 1",
    "a missing colon": "a: |\n x\ny",
    "an unknown directive": "%FOO\na: 1",
    "two documents": "a: 1\n---\nb: 2",
    "an unknown alias": "a: *x",
    "an alias in itself": "a: &x [*x]",
    "a key twice": "a: 1\nb: 2\na: 3",
    "a tag": "a: !env X",
    "a tag of YAML's": "a: !!python/name:os.system x",
    "a tag of a list": "a: !!set {x: 1}",
    "a tag that is wrong": "a: !!int x",
    "a list as a key": "? [a]\n: b",
    "a merged text": "a: {<<: x}",
    "a substituted key": "'${A}': 1",
    "a list": "- a",
    "a text": "hello",
    "nothing": "",
    "comments": "# x\n",
    "bytes": b"a: 1\nb: \xff\xfe",
    "a zero": "a: 1\nb: x\0",
    "a bell": "a: \a",
    "a deep list": "a: " + "[" * 70 + "]" * 70,
    "too much": "#" * (16 * 1024 * 1024 + 1),
}


def test_what_is_not_yaml_is_said_at_its_place() -> None:
    lines = "".join(f"{mistake}\n    {said(text)}" for mistake, text in MISTAKES.items())
    check_golden("not_yaml.txt", lines)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert tree("\ufeffa: 1") == {"a": 1}


def test_windows_line_ends() -> None:
    assert str(document("a: 1\r\nb:\r\n  c: x\r\n").place("b", "c")) == "portico.yaml:3:6"


@given(st.text(alphabet=st.sampled_from("ab:-[]{},&*!|>'\"%@`#?~<$ \n\t\r\\.1\u2028\x85é😀"), max_size=40))
def test_any_text_is_a_tree_or_has_findings(text: str) -> None:
    result = document(text)
    for finding in result.findings:
        assert finding.line >= 1
        assert finding.column >= 1
        assert "\n" not in str(finding)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_tree_or_have_findings(data: bytes) -> None:
    document(data)


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="$", exclude_categories=["C"]), max_size=8).filter(
    lambda text: resolve(text) == text  # PyYAML writes by YAML 1.1, where 0E0 is a text
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4))
def test_what_is_dumped_comes_back(data: dict[str, Plain]) -> None:
    data.pop("include", None)
    if data:
        assert tree(yaml.safe_dump(data, allow_unicode=True)) == data
