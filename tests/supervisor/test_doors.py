from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from portico.supervisor.doors import CannotStart, Door, Doors, address_of, inherited, listening, probe
from tests.harness.gateway import DEADLINE

LOCAL = "127.0.0.1"
ANY = ""
SLOTS = range(2)


def open_descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def doors() -> Iterator[Doors]:
    doors = Doors()
    yield doors
    close(doors)


def close(doors: Doors) -> None:
    doors.accept([], [])
    for each in doors._activated:
        each.close()


def listen(*addresses: tuple[str, int], scheme: str = "http") -> list[list[str | int]]:
    return [[host, port, scheme] for host, port in addresses]


def accepted(doors: Doors, *addresses: tuple[str, int], scheme: str = "http") -> list[Door]:
    wanted = listen(*addresses, scheme=scheme)
    found = doors.propose(wanted, SLOTS)
    doors.accept(found, [scheme] * len(found))
    return found


def free_port() -> int:
    return probe(LOCAL, 0)


def is_refused(port: int, host: str = LOCAL) -> bool:
    try:
        socket.create_connection((host, port), timeout=DEADLINE).close()
    except ConnectionRefusedError:
        return True
    return False


def drain(door: Door, slots: Iterable[int] = SLOTS) -> list[int]:
    """Accept everything that waits, and return how many clients came to each slot."""
    counts = []
    for slot in slots:
        counts.append(0)
        while select.select([door.sockets[slot]], [], [], 0)[0]:
            door.sockets[slot].accept()[0].close()
            counts[-1] += 1
    return counts


def clients(port: int, count: int = 64, host: str = LOCAL) -> None:
    """Have clients connect that leave again."""
    for _ in range(count):
        socket.create_connection((host, port), timeout=DEADLINE).close()


def activated(host: str = LOCAL) -> socket.socket:
    """Return a socket as systemd has bound it: with SO_REUSEADDR, and it knows nothing of others beside it."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, 0))
    sock.listen(128)
    return sock


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


# Proposals


def test_every_slot_of_a_door_has_a_socket_of_its_own(doors: Doors) -> None:
    (door,) = accepted(doors, (LOCAL, 0))
    assert sorted(door.sockets) == [0, 1]
    assert {port_of(each) for each in door.sockets.values()} == {door.bound}
    assert door.url == f"http://127.0.0.1:{door.bound}"
    clients(door.bound)
    counts = drain(door)
    assert sum(counts) == 64
    assert min(counts) > 0


def test_each_port_0_is_another_free_one(doors: Doors) -> None:
    found = accepted(doors, (LOCAL, 0), (LOCAL, 0), (ANY, 0))
    assert len({door.bound for door in found}) == 3
    assert [door.number for door in found] == [1, 2, 3]
    again = accepted(doors, (LOCAL, 0), (LOCAL, 0), (ANY, 0))
    assert all(one is other for one, other in zip(found, again, strict=True))


def test_doors_of_port_0_are_kept_in_their_order(doors: Doors) -> None:
    first, second = accepted(doors, (LOCAL, 0), (LOCAL, 0))
    assert accepted(doors, (LOCAL, 0)) == [first]
    assert second.sockets == {}
    assert is_refused(second.bound)


def test_a_door_that_is_known_keeps_its_number_and_sockets(doors: Doors) -> None:
    one, other = accepted(doors, (LOCAL, 0), (LOCAL, free_port()))
    before = dict(other.sockets)
    third = free_port()
    found = doors.propose(listen((LOCAL, third), (other.host, other.port)), SLOTS)
    assert found[1] is other
    assert found[0].number == 3
    assert doors.current == [one, other]
    doors.accept(found, ["http", "http"])
    assert other.sockets == before
    assert doors.current == found
    assert is_refused(one.bound)
    assert not is_refused(third)
    assert accepted(doors, (LOCAL, 0))[0].number == 4  # a number is never given twice


def test_a_door_changes_its_scheme_once_it_is_accepted(doors: Doors) -> None:
    (door,) = accepted(doors, (LOCAL, 0))
    found = doors.propose(listen((LOCAL, 0), scheme="https"), SLOTS)
    assert door.url.startswith("http://")
    doors.accept(found, ["https"])
    assert door.url.startswith("https://")


def test_a_proposal_that_is_withdrawn_leaves_nothing_open(doors: Doors) -> None:
    (door,) = accepted(doors, (LOCAL, 0))
    before = open_descriptors()
    found = doors.propose(listen((LOCAL, 0), (LOCAL, 0), (ANY, 0)), range(4))
    assert len(open_descriptors()) == len(before) + 8
    doors.withdraw(found)
    assert open_descriptors() == before
    assert doors.current == [door]
    assert not is_refused(door.bound)
    assert is_refused(found[1].bound)


def test_an_address_in_use_declines_all_of_a_proposal(doors: Doors) -> None:
    (door,) = accepted(doors, (LOCAL, 0))
    with activated() as other:
        before = open_descriptors()
        with pytest.raises(CannotStart, match=rf"^cannot listen on 127\.0\.0\.1:{port_of(other)}: Address already in"):
            doors.propose(listen((LOCAL, 0), (LOCAL, 0), (LOCAL, port_of(other))), SLOTS)
        assert open_descriptors() == before
        assert doors.current == [door]
        assert sorted(door.sockets) == [0, 1]


def test_another_gateway_is_not_shared_with(doors: Doors) -> None:
    (door,) = accepted(doors, (LOCAL, 0))
    with pytest.raises(CannotStart, match="Address already in use"):
        Doors().propose(listen((LOCAL, door.bound)), SLOTS)


def test_an_address_that_is_not_ours_is_declined(doors: Doors) -> None:
    with pytest.raises(CannotStart, match=r"^cannot listen on 192\.0\.2\.1:0: Cannot assign requested address$"):
        doors.propose(listen((LOCAL, 0), ("192.0.2.1", 0)), SLOTS)


def test_a_door_can_be_opened_to_every_interface_and_back(doors: Doors) -> None:
    port = free_port()
    (narrow,) = accepted(doors, (LOCAL, port))
    found = doors.propose(listen((ANY, port)), SLOTS)
    clients(port, 8)  # while both are open
    doors.accept(found, ["http"])
    assert found[0].number != narrow.number
    assert found[0].url == f"http://*:{port}"
    clients(port, 8)
    clients(port, 8, host="127.0.0.2")
    assert sum(drain(found[0])) == 16  # those that had come to the narrow one have gone with it
    (back,) = accepted(doors, (LOCAL, port))
    clients(port, 8)
    assert sum(drain(back)) == 8
    assert is_refused(port, "127.0.0.2")


def test_two_interfaces_have_a_door_each_at_one_port(doors: Doors) -> None:
    port = free_port()
    found = accepted(doors, (LOCAL, port), ("127.0.0.2", port))
    clients(port, 4)
    clients(port, 6, host="127.0.0.2")
    assert [sum(drain(door)) for door in found] == [4, 6]


def test_both_families_have_a_door_each_at_one_port(doors: Doors) -> None:
    port = free_port()
    found = accepted(doors, ("::1", port), (LOCAL, port))
    assert found[0].url == f"http://[::1]:{port}"
    clients(port, 4)
    clients(port, 6, host="::1")
    assert [sum(drain(door)) for door in found] == [6, 4]


# Slots


def test_a_slot_that_is_closed_leaves_its_clients_to_the_others(doors: Doors) -> None:
    (door,) = accepted(doors, (LOCAL, 0))
    doors.close(0)
    doors.close(0)
    clients(door.bound, 16)
    assert sorted(door.sockets) == [1]
    doors.open(0)
    kept = dict(door.sockets)
    doors.open(0)
    assert door.sockets == kept
    assert drain(door) == [0, 16]


def test_a_door_that_is_taken_over_is_known() -> None:
    doors = Doors()
    sock = listening(LOCAL, 0)
    left = Door(7, LOCAL, port_of(sock), "http", port_of(sock), {0: sock})
    doors.adopt(left)
    found = accepted(doors, (LOCAL, left.port), (LOCAL, 0))
    assert found[0] is left
    assert found[1].number == 8
    doors.open(1)
    clients(left.bound)
    assert min(drain(left)) > 0
    close(doors)


# What a service manager has bound


def test_a_socket_of_the_service_manager_is_used_and_shared() -> None:
    given = activated()
    port = port_of(given)
    doors = Doors([given])
    assert doors.unused() == [f"127.0.0.1:{port}"]
    clients(port, 3)  # they came before we did
    (door,) = accepted(doors, (LOCAL, port))
    assert doors.unused() == []
    assert (door.bound, door.handed, door.handed_to) == (port, given, 0)
    assert drain(door) == [3, 0]
    clients(port)
    counts = drain(door)
    assert sum(counts) == 64
    assert min(counts) > 0
    close(doors)
    given.close()


def test_the_queue_of_the_service_managers_socket_is_never_lost() -> None:
    given = activated()
    doors = Doors([given])
    (door,) = accepted(doors, (LOCAL, port_of(given)))
    doors.close(0)
    doors.close(1)
    clients(door.bound, 16)  # nobody is refused, whoever crashes
    doors.open(1)
    assert door.handed_to == 1
    assert drain(door, [1]) == [16]
    doors.open(0)
    clients(door.bound)
    assert min(drain(door)) > 0
    close(doors)


def test_slots_accept_from_the_same_queue_where_no_other_can_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(host: str, port: int) -> socket.socket:
        raise CannotStart("cannot listen: Permission denied")

    monkeypatch.setattr("portico.supervisor.doors.listening", refused)
    given = activated()
    doors = Doors([given])
    (door,) = accepted(doors, (LOCAL, port_of(given)))
    clients(door.bound, 4)
    for slot in (1, 0, 1, 0):
        assert select.select([door.sockets[slot]], [], [], DEADLINE)[0]
        door.sockets[slot].accept()[0].close()
    close(doors)


def test_a_socket_of_the_service_manager_waits_for_the_proposal_that_is_accepted() -> None:
    given = activated()
    port = port_of(given)
    doors = Doors([given])
    doors.withdraw(doors.propose(listen((LOCAL, port)), SLOTS))
    with activated() as other, pytest.raises(CannotStart):
        doors.propose(listen((LOCAL, port), (LOCAL, port_of(other))), SLOTS)
    assert doors.unused() == [f"127.0.0.1:{port}"]
    (door,) = accepted(doors, (LOCAL, port))
    assert door.handed is given
    accepted(doors)
    assert doors.unused() == [f"127.0.0.1:{port}"]
    (door,) = accepted(doors, (LOCAL, port))
    assert door.handed is given
    clients(port)
    assert min(drain(door)) > 0
    close(doors)


@pytest.mark.parametrize(
    ("bound", "host", "used"),
    [
        ("0.0.0.0", ANY, True),
        ("::", ANY, True),
        ("::1", "::1", True),
        (LOCAL, LOCAL, True),
        (LOCAL, ANY, False),
        ("0.0.0.0", LOCAL, False),
        ("::1", LOCAL, False),
    ],
)
def test_a_listener_gets_the_socket_that_is_bound_for_it(bound: str, host: str, used: bool) -> None:
    given = activated(bound)
    doors = Doors([given])
    try:
        (door,) = accepted(doors, (host, port_of(given)))
    except CannotStart:  # it is in the way
        assert not used
    else:
        assert (door.handed is given) is used
        if used:
            clients(door.bound, 8, host=bound if bound == "::1" else LOCAL)
            assert sum(drain(door)) == 8
    close(doors)


def test_port_0_never_means_what_the_service_manager_has_bound() -> None:
    doors = Doors([activated()])
    (door,) = accepted(doors, (LOCAL, 0))
    assert door.handed is None
    assert len(doors.unused()) == 1
    close(doors)


def test_only_sockets_that_listen_are_inherited() -> None:
    with activated() as listens, socket.socket() as idle, Path("/dev/null").open("rb") as file:
        found = inherited([os.dup(listens.fileno()), idle.fileno(), file.fileno(), 999_999])
        assert [port_of(each) for each in found] == [port_of(listens)]
        assert not found[0].get_inheritable()
        found[0].close()
        assert idle.fileno() >= 0
        idle.getsockname()


def test_addresses_are_shown_as_people_write_them() -> None:
    for host, shown in ((LOCAL, "127.0.0.1"), ("::1", "[::1]")):
        with activated(host) as sock:
            assert address_of(sock) == f"{shown}:{port_of(sock)}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0portico-test-doors-{os.getpid()}")
        assert "portico-test-doors" in address_of(sock)


def test_an_address_that_there_is_no_descriptor_for_is_declined(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    door = accepted(doors, (LOCAL, 0))[0]

    class NoneLeft(socket.socket):
        def __init__(self, *_: object, **__: object) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    door.close(1)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", NoneLeft)
        with pytest.raises(CannotStart, match="Too many open files"):
            doors.propose(listen((LOCAL, 0), (LOCAL, 0)), SLOTS)
        with pytest.raises(CannotStart, match="Too many open files"):
            door.open(1)
