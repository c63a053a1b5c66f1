"""Where the state is: what may be written, and that no password is shown."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.config.state import State, StoreUrl, parse_store
from portico.config.values import BadValue
from tests.config.kinds import config_of, messages_of


@pytest.mark.parametrize(
    ("text", "kind", "hosts", "rest"),
    [
        ("lmdb", "lmdb", "", "lmdb"),
        ("redis://localhost", "redis", "localhost:6379", "redis://localhost:6379/0"),
        ("redis://10.0.0.7:7000/3", "redis", "10.0.0.7:7000", "redis://10.0.0.7:7000/3"),
        ("valkey://[::1]:7000/", "redis", "[::1]:7000", "redis://[::1]:7000/0"),
        ("rediss://ada:p%40ss@h", "redis", "h:6379", "rediss://ada@h:6379/0"),
        ("redis+sentinel://a,b:1/m/2", "sentinel", "a:26379,b:1", "redis+sentinel://a:26379,b:1/m/2"),
        ("rediss+cluster://a,b:1", "cluster", "a:6379,b:1", "rediss+cluster://a:6379,b:1"),
    ],
)
def test_what_may_be_written(text: str, kind: str, hosts: str, rest: str) -> None:
    url = parse_store(text)
    assert url.kind == kind
    assert ",".join(map(str, url.hosts)) == hosts
    assert str(url) == rest
    assert url.tls == rest.startswith("rediss")
    assert config_of(f"state: '{text}'\n").state.store == url
    assert config_of(f"state: {{store: '{text}'}}\n").state.store == url


@pytest.mark.parametrize(
    "text",
    [
        *("", "lmdb:", "redis", "redis:", "redis://", "redis:///", "redis://:6379", "redis://h:0", "redis://h:65536"),
        *("redis://h/x", "redis://h/1/2", "redis://h/1234567", "redis://h?db=1", "redis://h#1", "redis://a,b"),
        *("redis://h h", "redis://h\n", "redis://[::1", "http://h", "redis+sentinel://h", "redis+sentinel://h/a b"),
        *("redis+cluster://h/1", "redis+cluster://", "redis://h/٣"),
    ],
)
def test_what_may_not(text: str) -> None:
    with pytest.raises(BadValue, match="is no store"):
        parse_store(text)


@given(
    st.text(max_size=40) | st.from_regex(r"([a-z%@0-9:]{0,9}@)?[a-z:0-9,\[\]]{1,9}(/[a-z0-9]{0,3}){0,2}"),
    st.sampled_from(["redis://", "rediss://", "redis+sentinel://", "redis+cluster://", ""]),
)
def test_any_text_is_understood_or_refused(text: str, scheme: str) -> None:
    try:
        url = parse_store(scheme + text)
    except BadValue:
        return
    assert parse_store(str(url)) == url._replace(password=None)


def test_a_password_is_nowhere_to_be_seen() -> None:
    for state in (
        State.model_validate({"store": "redis://:sesame@h"}),
        State.model_validate({"store": "redis://h", "password": "sesame"}),
    ):
        shown = f"{state!r} {state} {state.store} {state.store!r} {state.model_dump()} {state.model_dump_json()}"
        assert "sesame" not in shown
        assert pickle.loads(pickle.dumps(state)) == state
    (message,) = messages_of("state: redis://:sesame@h/x\n")
    assert "sesame" not in message


def test_a_password_may_be_another_and_that_is_another_state() -> None:
    one, other = (State.model_validate({"store": f"redis://:{password}@h"}) for password in ("a", "b"))
    assert one != other
    assert one == State.model_validate({"store": "redis://:a@h"})


def test_a_path_is_relative_to_its_file_and_is_to_be_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert State(path="lib").path == str(tmp_path / "lib")
    assert not (tmp_path / "lib").exists()
    (tmp_path / "lib").mkdir(mode=0o700)
    assert State(path="lib/more/../state").path == str(tmp_path / "lib" / "state")
    os.chmod(tmp_path / "lib", 0o777)  # noqa: PTH101
    with pytest.raises(ValueError, match="others can write to it"):
        State(path="lib")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="it is not a folder"):
        State(path="file")
    (tmp_path / "link").symlink_to(tmp_path / "lib")
    with pytest.raises(ValueError, match="it is not a folder"):
        State(path="link")
    with pytest.raises(ValueError, match="an empty text"):
        State(path="")


def test_it_is_lmdb_unless_something_else_is_said() -> None:
    assert config_of("workers: 1\n").state == State(store=StoreUrl("lmdb"))
