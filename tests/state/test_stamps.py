"""Stamps, between processes."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from portico.errors import ConfigError
from portico.state.stamps import EVERYTHING, PLACES, Stamps
from tests.harness.gateway import DEADLINE

OTHER = """
import sys
from pathlib import Path
from portico.state.stamps import Stamps
stamps = Stamps.open(Path(sys.argv[1]))
before = stamps[stamps.slot(b"a")]
stamps.change(stamps.slot(b"a"))
print(stamps.slot(b"a"), before)
"""


def test_a_change_is_seen_by_other_processes_of_the_store(tmp_path: Path) -> None:
    stamps, same = Stamps.open(tmp_path), Stamps.open(tmp_path)
    slot = stamps.slot(b"a")
    stamps.change(slot)
    before = stamps[slot]
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(tmp_path)], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert done.stdout.split() == [str(slot), str(before)]
    assert stamps[slot] > before
    assert same[slot] == stamps[slot]
    assert [stamps[other] for other in range(PLACES + 1) if other != slot] == [0] * PLACES
    same.close()
    stamps.close()
    again = Stamps.open(tmp_path)  # as a worker does that was started later
    assert again[slot] > before
    again.close()


def test_places_have_slots_of_their_own_and_not_that_of_everything() -> None:
    slots = [Stamps.slot(b"place %d" % number) for number in range(10_000)]
    assert EVERYTHING not in slots
    assert (min(slots) >= 1, max(slots) <= PLACES) == (True, True)
    assert len(set(slots)) > PLACES * 0.85  # 1 - e^(-10000/4096) is 0.91


def test_each_change_is_one_though_the_clock_stands_or_has_begun_anew() -> None:
    now = [1000]
    stamps = Stamps(mmap.mmap(-1, 8 * (1 + PLACES)), lambda: now[0])
    stamps.change(5)
    stamps.change(5)
    assert stamps[5] == 1001
    now[0] = 3  # the machine was started again
    stamps.change(5)
    assert stamps[5] == 1002
    now[0] = 5000
    stamps.change(5)
    assert (stamps[5], stamps[4]) == (5000, 0)
    stamps.close()


def test_all_change_at_once() -> None:
    stamps = Stamps.private()
    stamps.change(7)
    before = [stamps[slot] for slot in range(1 + PLACES)]
    stamps.change_all()
    assert all(stamps[slot] > each for slot, each in enumerate(before))
    stamps.close()


def test_a_file_that_others_have_open_is_never_cut(tmp_path: Path) -> None:
    stamps = Stamps.open(tmp_path)
    stamps.change(PLACES)
    (file,) = tmp_path.iterdir()
    with file.open("ab") as more:
        more.write(b"more")
    size = file.stat().st_size
    Stamps.open(tmp_path).close()
    assert file.stat().st_size == size
    assert file.stat().st_mode & 0o777 == 0o600
    stamps.close()


def test_what_cannot_be_opened_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "stamps-v1").symlink_to("/etc/passwd")  # somebody else's doing: it is not followed
    with pytest.raises(ConfigError, match=r"stamps-v1 cannot be opened: "):
        Stamps.open(tmp_path)
    with pytest.raises(ConfigError, match="No such file or directory"):
        Stamps.open(tmp_path / "no")
