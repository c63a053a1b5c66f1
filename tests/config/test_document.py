from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from portico.config import Document, FileSource, Severity, TextSource, read, report
from portico.config.nodes import plain
from tests.config.kinds import check_golden


def document(texts: Mapping[str, str | bytes] | str, **environment: str) -> Document:
    start = "portico.yaml" if isinstance(texts, str) else next(iter(texts))
    return read(TextSource(texts, start), environment)


def values(texts: Mapping[str, str | bytes] | str, **environment: str) -> object:
    result = document(texts, **environment)
    assert report(result.findings) == ""
    return plain(result.root)


def said(texts: Mapping[str, str | bytes] | str, **environment: str) -> list[str]:
    return report(document(texts, **environment).findings).splitlines()


def test_values_come_from_the_environment() -> None:
    text = "{a: '${A}', b: \"x-${A}-${B:-y}\", c: '${C:-z}', d: '$${A} $A $', e: '${EMPTY:-d}', f: '${EMPTY}'}"
    assert values(text, A="1", EMPTY="") == {
        "a": "1",
        "b": "x-1-y",
        "c": "z",
        "d": "${A} $A $",
        "e": "d",
        "f": "",
    }


def test_a_plain_scalar_has_the_type_of_what_is_filled_in() -> None:
    assert values("a: ${N}\nb: '${N}'\nc: ${T}\nd: ${N:-x}5\ne: ${F:-off}\n", N="2", T="true") == {
        "a": 2,
        "b": "2",
        "c": True,
        "d": 25,
        "e": "off",
    }


def test_what_is_filled_in_can_add_nothing_to_the_yaml() -> None:
    evil = "x\nroutes: [{path: /, service: evil}]\n# ${B}"
    assert values("a: ${A}\n", A=evil, B="b") == {"a": evil}


def test_values_come_from_files() -> None:
    texts = {
        "conf/portico.yaml": "a: ${file:keys/k}\nb: 'x ${file:../n}'\ninclude: sub/more.yaml\n",
        "conf/keys/k": "12345\r\n\n",
        "n": "é\n",
        "conf/sub/more.yaml": "policies: ['${file:name}']\n",
        "conf/sub/name": "geo",
    }
    assert values(texts) == {"a": "12345", "b": "x é", "policies": ["geo"]}
    assert document(texts).files == ("conf/portico.yaml", "conf/sub/more.yaml", "conf/keys/k", "n", "conf/sub/name")


def test_what_cannot_be_filled_in() -> None:
    text = "".join(f"- ${{{body}}}\n" for body in ("USER_SERVICE", "XYZ", "file:none", "file:binary", "file:long"))
    texts: dict[str, str | bytes] = {"portico.yaml": f"a:\n{text}", "binary": b"\xff", "long": "x" * (1024 * 1024 + 1)}
    assert said(texts, USERS_SERVICE="x") == [
        "portico.yaml:2:3: the environment has no variable USER_SERVICE (hint: did you mean 'USERS_SERVICE'?)",
        "portico.yaml:3:3: the environment has no variable XYZ (hint: set it, or give a default: ${XYZ:-default})",
        f"portico.yaml:4:3: cannot read none: {os.strerror(2)} (hint: the path is relative to the file it stands in)",
        "portico.yaml:5:3: binary is not text: it holds bytes that are not UTF-8",
        "portico.yaml:6:3: long is longer than 1048576 bytes, the limit for a file in a value",
    ]


@pytest.mark.parametrize("value", ["${}", "${A", "${A:-${B}}", "${1A}", "${A B}", "${file:}", "${A:=x}", "${A-x}"])
def test_what_is_no_substitution(value: str) -> None:
    first = said(f"a: '{value}'\n", A="a", B="b")[0]
    assert first.startswith("portico.yaml:1:4: '${")
    assert "(hint: write ${NAME}, ${NAME:-default} or ${file:PATH}; $${ stands for a plain ${)" in first


MAIN = "services: {a: x}\nroutes: [r1]\npolicies: [p1]\n"


def test_included_files_are_joined_in_order() -> None:
    texts = {
        "portico.yaml": MAIN + "include: [one.yaml, conf.d/*.yaml]\n",
        "one.yaml": "services: {b: y}\nroutes: [r2]\ninclude: sub/two.yaml\n",
        "sub/two.yaml": "routes: [r3]\npolicies: [p3]\nplugins: [./p.py]\n",
        "conf.d/b.yaml": "routes: [r5]\n",
        "conf.d/a.yaml": "routes: [r4]\npolicies:\n",
        "conf.d/c.txt": "no",
    }
    assert values(texts) == {
        "services": {"a": "x", "b": "y"},
        "routes": ["r1", "r2", "r3", "r4", "r5"],
        "policies": ["p1", "p3"],
        "plugins": ["./p.py"],
    }
    result = document(texts)
    assert result.files == ("portico.yaml", "one.yaml", "sub/two.yaml", "conf.d/a.yaml", "conf.d/b.yaml")
    assert str(result.place("routes", 3)) == "conf.d/a.yaml:1:10"
    assert [(plugin.name, str(plugin.place)) for plugin in result.plugins] == [("sub/p.py", "sub/two.yaml:3:11")]


def test_plugins_are_paths_or_modules() -> None:
    result = document({"etc/portico.yaml": "plugins: [a.py, ../b.py, my.module, ./c/d.py, /e.py]\n"})
    assert [plugin.name for plugin in result.plugins] == ["etc/a.py", "b.py", "my.module", "etc/c/d.py", "/e.py"]
    assert document("plugins: x.py\n").plugins == ()


MISTAKES: dict[str, dict[str, str | bytes]] = {
    "a missing file": {"portico.yaml": "include: [a.yaml]\n"},
    "a circle": {
        "portico.yaml": "include: a.yaml\n",
        "a.yaml": "include: ./b.yaml\n",
        "b.yaml": "include: portico.yaml\n",
    },
    "a file twice": {"portico.yaml": "include: [a.yaml, './x/../a.yaml']\n", "a.yaml": "routes: []\n"},
    "a service twice": {"portico.yaml": "services: {a: x}\ninclude: a.yaml\n", "a.yaml": "services:\n  a: y\n"},
    "other keys": {"portico.yaml": "include: a.yaml\n", "a.yaml": "listen: :80\nroutes: 5\nservices: [a]\n"},
    "no path": {"portico.yaml": "include: [{a: b}, a.yaml]\n", "a.yaml": "a: [\n"},
    "no match": {"portico.yaml": "include: 'none/*.yaml'\n"},
}


def test_what_can_go_wrong_with_includes() -> None:
    lines = "".join("\n    ".join([mistake, *said(texts)]) + "\n" for mistake, texts in MISTAKES.items())
    check_golden("includes.txt", lines)


def test_a_pattern_does_not_match_the_file_it_stands_in() -> None:
    assert values({"portico.yaml": "include: '*.yaml'\n", "a.yaml": "routes: [1]\n"}) == {"routes": [1]}


def test_chains_of_includes_end() -> None:
    texts = {f"f{n}.yaml": f"include: f{n + 1}.yaml\n" for n in range(12)}
    assert said(texts) == ["f8.yaml:1:10: files include each other more than 8 deep"]


def test_a_mistake_in_one_file_hides_none_in_another() -> None:
    lines = said({"portico.yaml": "a: 1\na: 2\ninclude: [b.yaml, c.yaml]\n", "b.yaml": "- x\n", "c.yaml": "\tx"})
    assert [line.split(" ")[0] for line in lines] == ["b.yaml:1:1:", "c.yaml:1:1:", "portico.yaml:2:1:"]


def test_brackets_in_the_path_of_the_file_are_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]*"
    folder.mkdir()
    (folder / "r.yaml").write_text("routes: [1]\n")
    (folder / "s.yml").write_text("routes: [2]\n")
    (folder / "portico.yaml").write_text("include: [s.yml, '[q-s].yaml']\n")
    assert plain(read(folder / "portico.yaml", {}).root) == {"routes": [2, 1]}


def test_files(tmp_path: Path) -> None:
    (tmp_path / "routes").mkdir()
    (tmp_path / "routes" / "a.yaml").write_text("routes: [{path: /a, service: '${file:../name}'}]\n")
    (tmp_path / "routes" / "d.yaml").mkdir()
    (tmp_path / "name").write_text("orders\n")
    path = tmp_path / "portico.yaml"
    path.write_text("include: routes/*.yaml\n")
    for source in (path, str(path), FileSource(path)):
        result = read(source, {})
        assert result.findings == ()
        assert plain(result.root) == {"routes": [{"path": "/a", "service": "orders"}]}
        assert result.files == (str(path), str(tmp_path / "routes" / "a.yaml"), str(tmp_path / "name"))
        assert str(result.place("routes", 0)) == f"{tmp_path}/routes/a.yaml:1:10"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = read(tmp_path / "none.yaml", {})
    reason = f"cannot read {tmp_path}/none.yaml: No such file or directory"
    assert report(missing.findings) == f"{tmp_path}/none.yaml:1:1: {reason}\n"
    assert missing.files == (f"{tmp_path}/none.yaml",)
    assert missing.findings[0].severity is Severity.ERROR
    assert "Is a directory" in report(read(tmp_path, {}).findings)
    assert "cannot read a\0b" in report(read("a\0b", {}).findings)


def test_the_environment_is_the_process_s_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_TEST", "x")
    assert plain(read(TextSource("a: ${PORTICO_TEST}")).root) == {"a": "x"}
