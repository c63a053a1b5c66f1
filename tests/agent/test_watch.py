from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from portico.agent.watch import Watch
from portico.runtime.loading import load


class Files:
    """Files whose stamps differ with each change, however quick one follows the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = 1_000_000_000

    def write(self, name: str, content: str = "a") -> str:
        path = self.folder / name
        path.write_text(content)
        self.touch(name)
        return str(path)

    def touch(self, name: str) -> None:
        self.clock += 1
        os.utime(self.folder / name, ns=(self.clock, self.clock))

    def path(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def watching(files: Sequence[str], patterns: Sequence[str] = ()) -> Watch:
    watch = Watch()
    watch.follow(files, patterns)
    return watch


def is_told_once_stable(watch: Watch) -> bool:
    """Whether a change is told at the second look, and not at the first, which may have met somebody who writes."""
    return not watch.changed() and watch.changed()


def is_still(watch: Watch) -> bool:
    return not any(watch.changed() for _ in range(3))


def test_a_file_that_stays_as_it_is_is_no_change(files: Files) -> None:
    watch = watching([files.write("a"), files.write("b")])
    assert is_still(watch)


def test_a_watch_of_nothing_has_nothing_to_tell() -> None:
    assert is_still(Watch())
    assert is_still(watching([]))


def test_a_change_is_told_at_the_second_look_and_until_it_is_loaded(files: Files) -> None:
    a = files.write("a")
    watch = watching([a])
    files.touch("a")
    assert is_told_once_stable(watch)
    assert watch.changed()
    watch.loading()
    watch.follow([a], [])
    assert is_still(watch)


def test_what_was_written_after_the_load_that_nobody_saw_is_a_change(files: Files) -> None:
    old, new = files.write("old"), files.write("new")
    watch = Watch()
    watch.follow([old, new], [], files.clock / 1e9 - 1)
    assert watch.changed()
    watch = Watch()
    watch.follow([old, new], [], files.clock / 1e9 + 1)
    assert is_still(watch)


def test_a_file_that_is_still_being_written_is_waited_for(files: Files) -> None:
    watch = watching([files.write("a")])
    for _ in range(3):
        files.touch("a")
        assert not watch.changed()
    assert watch.changed()


def test_a_change_of_the_size_alone_is_one(files: Files) -> None:
    a = files.write("a", "short")
    watch = watching([a])
    before = Path(a).stat()
    Path(a).write_text("longer than that")
    os.utime(a, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert is_told_once_stable(watch)


def test_another_file_in_its_place_is_a_change(files: Files) -> None:
    a = files.write("a", "one")
    watch = watching([a])
    before = Path(a).stat()
    other = files.write("other", "two")
    os.utime(other, ns=(before.st_mtime_ns, before.st_mtime_ns))
    Path(other).rename(a)
    assert is_told_once_stable(watch)


def test_a_link_that_leads_elsewhere_is_a_change(files: Files) -> None:
    for version in ("1", "2"):
        (files.folder / version).mkdir()
        (files.folder / version / "a").write_text("same size")
        os.utime(files.folder / version / "a", ns=(1, 1))
    data = files.folder / "..data"
    data.symlink_to("1")
    (files.folder / "a").symlink_to("..data/a")
    watch = watching([files.path("a")])
    assert is_still(watch)
    (files.folder / "..new").symlink_to("2")
    (files.folder / "..new").rename(data)
    assert is_told_once_stable(watch)


def test_a_change_that_is_taken_back_is_none(files: Files) -> None:
    a = files.write("a")
    watch = watching([a])
    before = Path(a).stat()
    files.touch("a")
    assert not watch.changed()
    os.utime(a, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert is_still(watch)


def test_a_file_that_goes_and_comes_back_is_told_each_time(files: Files) -> None:
    a = files.write("a")
    watch = watching([a])
    Path(a).unlink()
    assert is_told_once_stable(watch)
    watch.loading()
    watch.follow([a], [])  # the load has failed, of course
    assert is_still(watch)
    files.write("a")
    assert is_told_once_stable(watch)


def test_a_file_that_was_not_there_is_told_when_it_is(files: Files) -> None:
    watch = watching([files.path("a")])
    assert is_still(watch)
    files.write("a")
    assert is_told_once_stable(watch)


def test_files_that_begin_or_cease_to_match_a_pattern_are_changes(files: Files) -> None:
    main, pattern = files.write("main"), files.path("*.yaml")
    watch = watching([main], [pattern])
    assert is_still(watch)
    a = files.write("a.yaml")
    assert is_told_once_stable(watch)
    watch.loading()
    watch.follow([main, a], [pattern])
    assert is_still(watch)
    files.write("b.txt")
    assert is_still(watch)
    Path(a).unlink()
    assert is_told_once_stable(watch)


def test_a_pattern_may_match_below_its_folder(files: Files) -> None:
    watch = watching([files.write("main")], [files.path("conf/**/*.yaml")])
    (files.folder / "conf/a/b").mkdir(parents=True)
    assert is_still(watch)
    files.write("conf/a/b/c.yaml")
    assert is_told_once_stable(watch)


def test_files_that_are_not_part_of_it_any_more_are_not_watched(files: Files) -> None:
    a, b = files.write("a"), files.write("b")
    watch = watching([a, b])
    watch.loading()
    watch.follow([a], [])
    files.touch("b")
    assert is_still(watch)
    files.touch("a")
    assert is_told_once_stable(watch)


# While it is loaded


def test_a_change_during_a_load_is_not_lost(files: Files) -> None:
    a = files.write("a")
    watch = watching([a])
    files.touch("a")
    assert is_told_once_stable(watch)
    watch.loading()
    files.touch("a")
    watch.follow([a], [])
    assert watch.changed()


def test_a_file_that_goes_during_a_load_is_not_lost(files: Files) -> None:
    a, b = files.write("a"), files.write("b")
    watch = watching([a, b])
    watch.loading()
    Path(b).unlink()
    watch.follow([a, b], [])
    assert watch.changed()


def test_a_file_that_comes_to_match_during_a_load_is_not_lost(files: Files) -> None:
    main, pattern = files.write("main"), files.path("*.yaml")
    watch = watching([main], [pattern])
    watch.loading()
    files.write("late.yaml")
    watch.follow([main], [pattern])
    assert watch.changed()
    watch.loading()
    watch.follow([main, files.path("late.yaml")], [pattern])
    assert is_still(watch)


def test_a_file_that_matches_and_is_no_part_of_it_is_told_once(files: Files) -> None:
    main, pattern = files.write("main"), files.path("*.yaml")
    (files.folder / "folder.yaml").mkdir()
    watch = watching([main], [pattern])
    assert watch.changed()
    for _ in range(2):
        watch.loading()
        watch.follow([main], [pattern])
        assert is_still(watch)


def test_a_file_that_is_new_in_the_configuration_is_watched_from_then_on(files: Files) -> None:
    main, new = files.write("main"), files.write("new")
    watch = watching([main])
    watch.loading()
    watch.follow([main, new], [])
    assert is_still(watch)
    files.touch("new")
    assert is_told_once_stable(watch)


def test_a_load_that_failed_is_not_tried_again_until_something_changes(files: Files) -> None:
    main = files.write("main")
    watch = watching([main])
    files.write("main", "broken")
    assert is_told_once_stable(watch)
    watch.loading()  # it raises, and nothing is followed anew
    assert is_still(watch)
    files.write("main", "mended")
    assert is_told_once_stable(watch)


def test_all_files_that_a_load_takes_are_watched(files: Files) -> None:
    (files.folder / "routes").mkdir()
    files.write("routes/a.yaml", "routes: [{path: /a, respond: {body: a}}]")
    files.write("plugin.py", "from portico.plugin import *\n")
    files.write("body.txt", "text")
    main = files.write(
        "main.yaml",
        "include: routes/*.yaml\nplugins: [plugin.py]\nroutes: [{path: /b, respond: {body: '${file:body.txt}'}}]",
    )
    loaded = load(Path(main))
    assert loaded.config is not None, loaded.findings
    watch = watching(loaded.files, loaded.patterns)
    assert is_still(watch)
    for name in ("main.yaml", "routes/a.yaml", "plugin.py", "body.txt"):
        files.touch(name)
        assert is_told_once_stable(watch), name
        watch.loading()
        watch.follow(loaded.files, loaded.patterns)
    files.write("routes/b.yaml", "routes: []")
    assert is_told_once_stable(watch)
