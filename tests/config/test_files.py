"""Paths in a configuration: to which file they lead, and what is said where it is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from portico.config import TextSource, read, validate
from portico.config.values import FilePath
from tests.config.kinds import POLICIES, Settings


class Signed(Settings):
    key: FilePath
    """Where the key is."""


KINDS: dict[str, type[BaseModel]] = {**POLICIES, "signed": Signed}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    for name in ("key", "more/key"):
        (tmp_path / name).write_text(name)
    return tmp_path


def path_in(file: Path, text: str) -> str:
    """Return the normalised path where `text` stands for it in `file`."""
    loaded = validate(read(TextSource({str(file): text}, str(file))), policies=KINDS, endpoints={})
    assert loaded.config is not None, loaded.findings
    policy = loaded.config.policies[0].config
    assert isinstance(policy, Signed)
    return policy.key


@pytest.mark.parametrize(
    ("written", "name"),
    [("key", "key"), ("./key", "key"), ("more/key", "more/key"), ("more/../key", "key"), ("more//key", "more/key")],
)
def test_a_path_is_relative_to_the_folder_of_its_file(folder: Path, written: str, name: str) -> None:
    assert path_in(folder / "portico.yaml", f"policies: [signed: {written}]") == str(folder / name)


def test_an_absolute_path_is_taken_as_it_is(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("elsewhere") / "portico.yaml"
    assert path_in(file, f"policies: [signed: '{folder}/key']") == str(folder / "key")


def test_a_file_named_without_its_folder_is_in_this_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert path_in(Path("portico.yaml"), "policies: [signed: key]") == str(folder / "key")
    assert path_in(Path("more/portico.yaml"), "policies: [signed: key]") == str(folder / "more/key")


def test_a_path_in_an_included_file_is_relative_to_that(folder: Path) -> None:
    (folder / "portico.yaml").write_text("include: more/*.yaml\npolicies: [{signed: key, name: first}]\n")
    (folder / "more/policies.yaml").write_text(
        "policies: [signed: key]\nservices: {a: {url: 'https://a', tls: {ca: key}}}\n"
    )
    loaded = validate(read(folder / "portico.yaml"), policies=KINDS, endpoints={})
    assert loaded.config is not None, loaded.findings
    keys = [use.config.key for use in loaded.config.policies if isinstance(use.config, Signed)]
    assert keys == [str(folder / "key"), str(folder / "more/key")]
    tls = loaded.config.services["a"].tls
    assert tls is not None
    assert tls.ca == str(folder / "more/key")


def test_in_code_a_path_is_relative_to_where_it_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert Signed(key="key").key == str(folder / "key")
    adapter = TypeAdapter[str](FilePath)
    assert adapter.json_schema()["type"] == "string"
    with pytest.raises(ValidationError):
        adapter.validate_python(Path("key"))


def said_in(folder: Path, written: str) -> str:
    file = str(folder / "portico.yaml")
    source = TextSource({file: f"policies: [signed: {written}]", str(folder / "secret"): "./hunter2/../x"}, file)
    loaded = validate(read(source), policies=KINDS, endpoints={})
    assert loaded.config is None
    said = [str(finding) for finding in loaded.findings]
    assert len(said) == 1
    return said[0].replace(str(folder), "FOLDER")


TILDE = " (hint: '~' has no meaning here; write the whole path)"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("none.pem", "cannot read FOLDER/none.pem: No such file or directory"),
        ("../../none.pem", "cannot read FOLDER/../../none.pem: No such file or directory"),
        ("/none/at/all", "cannot read /none/at/all: No such file or directory"),
        ("more", "cannot read FOLDER/more: it is not a regular file"),
        ("key/x", "cannot read FOLDER/key/x: Not a directory"),
        ("12", "cannot read FOLDER/12: No such file or directory"),
        (
            "'~/key'",
            "cannot read FOLDER/~/key: No such file or directory (hint: '~' has no meaning here; write the whole path)",
        ),
        ('"a\\0b"', "cannot read FOLDER/a\0b: embedded null byte"),
        ("''", "an empty text is not the path of a file (hint: leave it out, or write a path)"),
    ],
)
def test_what_is_said_about_a_file_that_cannot_be_read(folder: Path, written: str, said: str) -> None:
    assert said_in(folder, written) == f"FOLDER/portico.yaml:1:20: key: {said}"


def test_a_file_that_must_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, os.strerror(13), path)

    monkeypatch.setattr("portico.config.values.os.open", refuse)
    assert said_in(folder, "key").endswith("key: cannot read FOLDER/key: Permission denied")


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert said_in(folder, "pipe").endswith("key: cannot read FOLDER/pipe: it is not a regular file")


def test_a_path_out_of_a_secret_s_file_is_not_repeated(folder: Path) -> None:
    said = said_in(folder, '"${file:secret}"')
    assert "hunter2" not in said
    assert said.endswith("key: cannot read FOLDER/***: No such file or directory")


def test_what_a_file_holds_is_never_shown() -> None:
    """People put a key itself where its path belongs; the message must not print it."""
    text = 'listen: [{address: ":443", tls: {certificate: "-----BEGIN PRIVATE KEY----- secret"}}]\n'
    judged = validate(read(TextSource({"a.yaml": text}, "a.yaml")), policies={}, endpoints={})
    said = " ".join(map(str, judged.findings))
    assert "this is what a file holds, and not its path" in said
    assert "secret" not in said
