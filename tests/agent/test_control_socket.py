from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from portico.agent.control_socket import bind, folder, socket_of, sockets_of, unbind
from portico.errors import ConfigError


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the sockets, with a path that is short enough for them."""
    with tempfile.TemporaryDirectory(prefix="p") as short:
        monkeypatch.setenv("PORTICO_RUNTIME_DIR", f"{short}/run")
        yield Path(short, "run")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


# The folder


def test_the_folder_is_made_for_its_user_alone(here: Path) -> None:
    assert folder() == here
    assert mode_of(here) == 0o700
    assert folder() == here


def test_the_folder_is_where_the_environment_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "xdg"))
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / "chosen"))
    assert folder() == tmp_path / "chosen"
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", "")
    assert folder() == tmp_path / "xdg" / "portico"


def test_without_any_of_them_it_is_a_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("PORTICO_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError):  # it is made, and then it is not that user's
        folder()
    assert (tmp_path / f"portico-{os.getuid() + 1}").is_dir()


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(here: Path, mode: int) -> None:
    here.mkdir()
    here.chmod(mode)
    with pytest.raises(ConfigError, match=r"is not a folder that only you can write to; set PORTICO_RUNTIME_DIR"):
        folder()


def test_a_folder_that_others_can_read_will_do(here: Path) -> None:
    here.mkdir()
    here.chmod(0o755)
    assert folder() == here


def test_a_folder_behind_a_link_is_refused(here: Path) -> None:
    elsewhere = here.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    here.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="is not a folder that only you"):
        folder()


def test_a_file_in_the_place_of_the_folder_is_told(here: Path) -> None:
    here.touch()
    with pytest.raises(ConfigError, match=rf"^{here}: File exists; set PORTICO_RUNTIME_DIR"):
        folder()


# The sockets


def test_a_gateway_is_found_by_its_file_however_it_is_named(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gate way.v2.yaml"
    file.touch()
    (tmp_path / "link.yaml").symlink_to(file)
    monkeypatch.chdir(tmp_path)
    path = socket_of(str(file), 42)
    assert path.parent == here
    assert path.name.startswith("gate_way.v2-")
    assert path.name.endswith("-42.sock")
    assert socket_of("gate way.v2.yaml", 42) == path
    assert socket_of(str(tmp_path / "other" / file.name), 42) != path
    with closing(bind(path)):
        assert sockets_of("link.yaml") == [path]
        assert sockets_of("other.yaml") == []
        assert sockets_of(None) == [path]


def test_a_gateway_is_found_after_its_file_was_swapped_as_kubernetes_does_it(here: Path, tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "portico.yaml").touch()
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "portico.yaml").symlink_to("..data/portico.yaml")
    path = socket_of(str(tmp_path / "portico.yaml"), 42)
    with closing(bind(path)):
        (tmp_path / "new").symlink_to("2")
        (tmp_path / "new").rename(tmp_path / "..data")
        assert sockets_of(str(tmp_path / "portico.yaml")) == [path]


def test_several_gateways_of_one_file_are_all_found(here: Path) -> None:
    paths = [socket_of("a.yaml", 1), socket_of("a.yaml", 2), socket_of("b.yaml", 3)]
    socks = [bind(path) for path in paths]
    assert sockets_of("a.yaml") == paths[:2]
    assert sockets_of(None) == paths
    socks[0].close()  # it has died, and left its socket behind
    assert sockets_of("a.yaml") == [paths[1]]
    assert paths[0].exists()
    for sock in socks[1:]:
        sock.close()
    assert sockets_of(None) == []


def test_where_there_is_no_gateway_none_is_found(here: Path) -> None:
    assert sockets_of("a.yaml") == []
    (here / "a-0000000000-1.sock").touch()
    assert sockets_of(None) == []


def test_a_socket_is_its_users_alone(here: Path) -> None:
    path = socket_of("a.yaml", 1)
    before = os.umask(0)
    try:
        with closing(bind(path)):
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert mode_of(path) == 0o600
            assert [each.name for each in here.iterdir()] == [path.name]
    finally:
        os.umask(before)


def test_what_was_left_behind_gives_way(here: Path) -> None:
    path = socket_of("a.yaml", 1)
    bind(path).close()
    path.with_suffix(f".{os.getpid()}").touch()  # by one that died in the middle of it
    with closing(bind(path)):
        assert is_answered(path)
        assert [each.name for each in here.iterdir()] == [path.name]


def test_the_next_agent_takes_the_place_of_one_that_still_listens(here: Path) -> None:
    path = socket_of("a.yaml", 1)
    with closing(bind(path)) as first, closing(bind(path)) as second:
        assert is_answered(path)
        second.setblocking(False)
        second.accept()[0].close()
        first.setblocking(False)
        with pytest.raises(BlockingIOError):
            first.accept()


def test_a_path_that_is_too_long_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORTICO_RUNTIME_DIR", str(tmp_path / ("long" * 30)))
    path = socket_of("a.yaml", 1)
    with pytest.raises(ConfigError, match=r"AF_UNIX path too long; set PORTICO_RUNTIME_DIR to another folder$"):
        bind(path)
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_is_gone_is_told(here: Path) -> None:
    path = socket_of("a.yaml", 1)
    here.rmdir()
    with pytest.raises(ConfigError, match=r"No such file or directory; set PORTICO_RUNTIME_DIR to another folder$"):
        bind(path)


def test_an_agent_takes_its_socket_away_at_its_end(here: Path) -> None:
    path = socket_of("a.yaml", 1)
    bind(path).close()
    unbind(path)
    assert list(here.iterdir()) == []
    unbind(path)


def test_an_agent_leaves_the_socket_of_the_next_one_alone(here: Path) -> None:
    path = socket_of("a.yaml", 1)
    first = bind(path)
    with closing(bind(path)):
        first.close()
        unbind(path)
        assert is_answered(path)
