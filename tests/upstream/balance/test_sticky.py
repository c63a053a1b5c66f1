from __future__ import annotations

import re
from base64 import urlsafe_b64decode

import pytest

from portico.http.forwarded import Client
from portico.http.headers import Headers
from portico.http.message import Request
from portico.upstream.balance import Balancer
from portico.upstream.target import Target
from tests.harness.targets import GET, counted, maker, some_targets, visited

SECRET = "0123456789abcdef"
STICKY = {"sticky": SECRET}


def with_cookies(*lines: bytes, scheme: str = "http") -> Request:
    headers = Headers([(b"Cookie", line) for line in lines])
    return Request("GET", "/", headers=headers, client=Client("192.0.2.7", 1, 80, scheme))


def pair(balancer: Balancer, target: Target) -> bytes:
    """Return the cookie that names `target`, as a client sends it."""
    line = balancer.mark(GET, target)
    assert line is not None
    return line.partition(b";")[0]


def test_a_client_stays_at_the_target_of_its_first_answer() -> None:
    targets = some_targets([1] * 5)
    make = maker(STICKY)
    balancer = make(targets)
    for target in targets:
        request = with_cookies(pair(balancer, target))
        assert counted(balancer, 20, request) == {target: 20}
        assert balancer.mark(request, target) is None
        assert counted(make(targets[::-1]), 20, request) == {target: 20}
        assert counted(maker(STICKY, seed=9)(targets), 20, request) == {target: 20}  # another gateway


@pytest.mark.parametrize("algorithm", ["round-robin", "random", "least-request", "peak-ewma", "consistent-hash"])
def test_it_goes_with_every_algorithm(algorithm: str) -> None:
    written = {"hash": {"header": "x"}} if algorithm == "consistent-hash" else {"algorithm": algorithm}
    targets = some_targets([1, 2, 3])
    balancer = maker({**written, **STICKY})(targets)
    assert set(counted(balancer, 200)) == set(targets)
    assert counted(balancer, 20, with_cookies(pair(balancer, targets[0]))) == {targets[0]: 20}
    assert maker(algorithm if algorithm != "consistent-hash" else written)(targets).mark(GET, targets[0]) is None


def test_the_line_says_all_that_it_should() -> None:
    target, *_ = targets = some_targets([1, 1])
    line = maker(STICKY)(targets).mark(with_cookies(), target)
    assert line is not None
    assert re.fullmatch(rb"portico-target=[\w-]{24}; Path=/; HttpOnly; SameSite=Lax", line)
    named = maker({"sticky": {"secret": SECRET, "cookie": "at", "max_age": 90.5}})(targets)
    secure = named.mark(with_cookies(scheme="https"), target)
    assert secure is not None
    assert re.fullmatch(rb"at=[\w-]{24}; Max-Age=91; Path=/; HttpOnly; SameSite=Lax; Secure", secure)


def test_the_value_is_an_hmac_that_depends_on_secret_service_and_target() -> None:
    targets = some_targets([1, 1])
    balancers = [
        maker(STICKY)(targets),
        maker(STICKY, service="other")(targets),
        maker({"sticky": SECRET + "!"})(targets),
    ]
    values = {pair(balancer, target) for balancer in balancers for target in targets}
    assert len(values) == 6
    assert all(len(urlsafe_b64decode(value.partition(b"=")[2])) >= 16 for value in values)
    assert pair(balancers[0], targets[0]) == b"portico-target=x2UWWg6MoCpGD5APf2-fHcIs"


def cookies_that_name_none(balancer: Balancer, target: Target) -> list[bytes]:
    right = pair(balancer, target)
    foreign = pair(maker(STICKY, service="other")(balancer.targets), target)
    address = target.address.encode()
    return [
        b"",
        b"portico-target=",
        b"portico-target",
        b"portico-target=" + address,
        b"portico-target=" + b"A" * 24,
        b"portico-target=" + b"A" * 60_000,
        b"portico-target=" + right,
        b"portico-target=\xff",
        foreign,
        right[:-1],
        right + b"A",
        right.replace(b"=", b"=="),
        b'portico-target="' + right.partition(b"=")[2] + b'"',
        b"x" + right,
        b"x-" + right,
        b"x=1 " + right,
        b"x=" + right,
        right.upper(),
        b"portico-target=;" * 7,
    ]


def test_cookies_that_name_no_target_are_as_none_at_all() -> None:
    targets = some_targets([1] * 4)
    balancer = maker(STICKY)(targets)
    for cookie in cookies_that_name_none(balancer, targets[0]):
        request = with_cookies(cookie)
        assert counted(balancer, 8, request) == dict.fromkeys(targets, 2), cookie
        assert balancer.mark(request, targets[0]) == balancer.mark(GET, targets[0])


def test_a_right_cookie_is_found_among_others() -> None:
    targets = some_targets([1] * 4)
    balancer = maker(STICKY)(targets)
    right, second = pair(balancer, targets[2]), pair(balancer, targets[1])
    requests = [
        with_cookies(b"a=1; " + right + b"; b=2"),
        with_cookies(b"a=1;" + right + b" ;b=2"),
        with_cookies(b"\t" + right),
        with_cookies(b"a=1", b"b=2; " + right),
        with_cookies(right + b"; " + second),
        with_cookies(right, second),
        *(with_cookies(wrong + b"; " + right) for wrong in cookies_that_name_none(balancer, targets[0])),
        *(with_cookies(wrong, right) for wrong in cookies_that_name_none(balancer, targets[0])),
    ]
    for request in requests:
        assert counted(balancer, 5, request) == {targets[2]: 5}, request.headers
        assert balancer.mark(request, targets[2]) is None
        assert balancer.mark(request, targets[1]) == balancer.mark(GET, targets[1])


def test_no_more_than_a_few_cookies_are_looked_at() -> None:
    targets = some_targets([1] * 4)
    balancer = maker(STICKY)(targets)
    request = with_cookies(b"portico-target=;" * 4000 + pair(balancer, targets[0]))
    assert counted(balancer, 8, request) == dict.fromkeys(targets, 2)


def test_a_client_whose_target_is_gone_gets_another_and_its_cookie() -> None:
    gone, *others = targets = some_targets([1] * 3)
    make = maker(STICKY)
    request = with_cookies(pair(make(targets), gone))
    balancer = make(others)
    target = balancer.pick(request)
    assert target in others
    assert balancer.mark(request, target) == balancer.mark(GET, target) is not None
    assert balancer.mark(request, gone) is None  # it has answered late: there is no way back to it
    assert make(targets).pick(request) is gone


def test_a_client_whose_target_fails_gets_another_and_its_cookie() -> None:
    first, *_ = targets = some_targets([1] * 3)
    balancer = maker(STICKY)(targets)
    request = with_cookies(pair(balancer, first))
    order = visited(balancer, request)
    assert order[0] is first
    assert set(order) == set(targets)
    assert balancer.mark(request, order[1]) == balancer.mark(GET, order[1])
    assert balancer.other(request, [order[1]]) is first


def test_a_policys_own_request_has_no_client() -> None:
    targets = some_targets([1])
    balancer = maker(STICKY)(targets)
    line = balancer.mark(GET, balancer.pick(GET))
    assert line is not None
    assert b"Secure" not in line
