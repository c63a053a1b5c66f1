"""Where targets are found out: the seam, and a file. DNS is in test_discovery_dns.py."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from portico.config.balance import Discover, HealthCheck, Target
from portico.config.upstream import Service
from portico.upstream.discovery import Discovery, DiscoveryFailed, Found
from portico.upstream.discovery import file as by_file
from portico.upstream.discovery.file import SETTLE, Listed
from portico.upstream.discovery.kinds import KINDS, discovery_of
from tests.harness.loop import run


class Everywhere(Discovery):
    """What another kind takes, as a long poll would have it: it waits until there is something new."""

    def __init__(self, discover: Discover) -> None:
        self._name = discover.srv
        self.news: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()

    async def look(self) -> Found:
        addresses = await self.news.get()
        if not addresses:
            raise DiscoveryFailed(f"{self._name} is nowhere")
        return Found(tuple(Target.model_validate({"address": each}) for each in addresses), 0.0)


def test_another_kind_is_a_class_and_a_line_of_a_table() -> None:
    async def main() -> None:
        discovery = discovery_of(Discover(srv="_http._tcp.a"), {**KINDS, "srv": Everywhere})
        assert isinstance(discovery, Everywhere)
        discovery.news.put_nowait(("a:1", "b:2"))
        assert [str(target) for target in (await discovery.look()).targets] == ["a:1", "b:2"]
        discovery.news.put_nowait(())
        with pytest.raises(DiscoveryFailed, match=r"_http\._tcp\.a is nowhere"):
            await discovery.look()

    run(main)


@pytest.mark.parametrize("key", ["dns", "srv", "file"])
def test_every_way_to_discover_has_its_kind(key: str, tmp_path: Path) -> None:
    (tmp_path / "targets").write_text("[a:1]")
    values = {"dns": "a:1", "srv": "_http._tcp.a", "file": str(tmp_path / "targets")}
    assert isinstance(discovery_of(Discover.model_validate({key: values[key]})), Discovery)
    assert set(KINDS) == set(values)


def test_dns_is_not_asked_by_https() -> None:
    with pytest.raises(ValueError, match="DNS is asked by UDP and TCP, not by HTTPS"):
        Discover.model_validate({"dns": "a:1", "resolver": "https://1.1.1.1"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "targets.yaml").write_text('[127.0.0.1:1, {address: "https://a:2", weight: 3, metadata: {zone: a}}]')
    return tmp_path / "targets.yaml"


def listed(file: Path) -> Listed:
    return Listed(Discover(file=str(file)))


def test_a_file_lists_targets(file: Path) -> None:
    async def main() -> None:
        targets, again_in, _ = await listed(file).look()
        assert [(str(each), each.scheme, each.weight, each.metadata) for each in targets] == [
            ("127.0.0.1:1", "http", 1, {}),
            ("a:2", "https", 3, {"zone": "a"}),
        ]
        assert again_in == 1.0

    run(main)


def test_a_file_may_be_json(file: Path) -> None:
    file.write_text('[\n\t"127.0.0.1:1",\n\t{"address": "[::1]:2", "priority": 1}\n]')
    targets = run(lambda: listed(file).look()).targets
    assert [(str(each), each.priority) for each in targets] == [("127.0.0.1:1", 0), ("[::1]:2", 1)]


def test_a_file_is_read_again_once_it_stays_as_it_is(file: Path) -> None:
    async def main() -> None:
        discovery = listed(file)
        first = await discovery.look()
        assert (await discovery.look()).targets is first.targets
        file.write_text("[b:1]")
        assert await discovery.look() == Found(first.targets, SETTLE)
        file.write_text("[b:1, b:2]")  # it was still being written
        assert await discovery.look() == Found(first.targets, SETTLE)
        assert [str(each) for each in (await discovery.look()).targets] == ["b:1", "b:2"]
        other = file.with_name("other")
        other.write_text("[c:1, c:2]")
        other.replace(file)
        await discovery.look()
        assert [str(each) for each in (await discovery.look()).targets] == ["c:1", "c:2"]

    run(main)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", ":1:1: the list is empty"),
        ("", ":1:1: there is nothing here (hint: write a list"),
        ("targets: [a:1]", ":1:1: expected a list of targets, not a mapping (hint: write a list"),
        ("- a:1\n- b", ":2:3: targets: 'b' is not an address of a target (hint: write orders:8080"),
        ("- {address: a:1, wieght: 2}", ":1:18: unknown key 'wieght' in targets (hint: did you mean 'weight'?)"),
        ("- a:1\n- a:1", ":2:3: the target a:1 stands there twice (hint: keep one"),
        ("[a:1", ":2:1: a ',' or ']' was expected here"),
        ("- {address: a:1, name: b}", ":1:18: unknown key 'name' in targets"),
        ("- {address: a:1, metadata: {zone: '${HOME}'}}", "nothing is filled in here"),
        ("- {address: a:1, metadata: {zone: " + "z" * 257 + "}}", "an entry is longer than 256 characters"),
        ("- &m {address: a:1}\n" + "- *m\n" * 5000, "5001 targets are more than 5000"),
        ("[a, b, c, d, e]", "; and 2 more"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(file: Path, text: str, why: str) -> None:
    file.write_text(text)
    with pytest.raises(DiscoveryFailed) as failed:
        run(lambda: listed(file).look())
    assert (f"{file}{why}" if why.startswith(":") else why) in str(failed.value)
    assert failed.value.again_in == 1.0


def test_a_file_that_breaks_is_mended(file: Path) -> None:
    async def main() -> None:
        discovery = listed(file)
        await discovery.look()
        file.write_text("[a:1")
        await discovery.look()
        for _ in range(2):
            with pytest.raises(DiscoveryFailed, match="was expected here"):
                await discovery.look()
        file.unlink()
        with pytest.raises(DiscoveryFailed, match="was expected here"):
            await discovery.look()
        with pytest.raises(DiscoveryFailed, match="cannot read"):
            await discovery.look()
        file.write_text("[a:1]")
        with pytest.raises(DiscoveryFailed, match="cannot read"):
            await discovery.look()
        assert [str(each) for each in (await discovery.look()).targets] == ["a:1"]

    run(main)


def test_a_file_that_does_not_answer_keeps_one_thread(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let, reads = threading.Event(), []

    def hangs(path: str) -> None:
        reads.append(path)
        let.wait(5)

    async def main() -> None:
        discovery = listed(file)
        monkeypatch.setattr(by_file, "stamp", hangs)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await discovery.look()
        let.set()

    run(main)
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"dns": "https://a:1", "scheme": "https"}, "scheme is for the targets of srv"),
        ({"file": __file__, "scheme": "http"}, "scheme is for the targets of srv"),
        ({"file": __file__, "resolver": "a:53"}, "a file has no use for resolver"),
        ({"file": __file__, "max_interval": 3}, "a file has no use for max_interval"),
        ({"dns": "a:1", "interval": 5, "max_interval": 3}, "max_interval is shorter than interval"),
    ],
)
def test_what_would_be_in_vain_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Discover.model_validate(said)
    assert Discover(dns="a:1", interval=600.0).interval == 600


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"tcp": True, "statuses": [200]}, "statuses says nothing"),
        ({"tcp": True, "headers": {"X": "a"}}, "headers says nothing"),
        ({"path": "/", "headers": {"HOST": "a"}}, "Host has a key of its own|HOST"),
        ({"path": "/", "headers": {"Content-Length": "3"}}, "leave it out"),
        ({"path": "/", "interval": 0.05}, "at least 100 ms apart"),
        ({"path": "/#a"}, "should match"),
    ],
)
def test_what_a_health_check_cannot_do_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        HealthCheck.model_validate(said)


@pytest.mark.parametrize("discover", [{"dns": "a:1"}, {"srv": "_http._tcp.a"}])
def test_tls_that_nobody_speaks_is_refused(discover: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="TLS is spoken to none"):
        Service.model_validate({"discover": discover, "tls": {"verify": False}})
    for other in ({"dns": "https://a:1"}, {"srv": "_http._tcp.a", "scheme": "https"}, {"file": __file__}):
        assert Service.model_validate({"discover": other, "tls": {"verify": False}}).tls


def test_metadata_is_little() -> None:
    with pytest.raises(ValidationError, match="33 entries are more than 32"):
        Target.model_validate({"address": "a:1", "metadata": {f"k{number}": "" for number in range(33)}})


def test_what_is_no_file_any_more_is_not_waited_for(file: Path) -> None:
    async def main() -> None:
        discovery = listed(file)
        await discovery.look()
        file.unlink()
        os.mkfifo(file)
        await discovery.look()
        with pytest.raises(DiscoveryFailed, match="it is not a regular file"):
            await discovery.look()

    run(main)
