from __future__ import annotations

from portico.observe.exchange import MOST_NOTES, Exchange


def told(exchange: Exchange) -> list[tuple[str, str, str, float, float, float]]:
    return [(t.service, t.target, t.outcome, t.started, t.sent, t.first_byte) for t in exchange.all_tries()]


def send(exchange: Exchange, target: str, sent: float, first_byte: float = 0.0) -> None:
    exchange.service, exchange.target, exchange.sent, exchange.first_byte = "svc", target, sent, first_byte
    exchange.tries += 1


def test_there_are_no_tries_where_no_service_was_asked() -> None:
    exchange = Exchange(1.0)
    assert exchange.all_tries() == []
    exchange.try_again("service-timeout", 2.0)
    assert exchange.tried is None


def test_tries_are_kept_in_order_and_the_last_one_is_in_the_record_itself() -> None:
    exchange = Exchange(1.0)
    exchange.service, exchange.target, exchange.connecting = "svc", "a:80", 1.1
    exchange.try_again("service-unreachable", 1.2)
    send(exchange, "b:80", 1.3, 1.4)
    exchange.try_again("status-503", 1.5)
    send(exchange, "c:80", 1.6, 1.7)
    exchange.ended = 2.0
    assert (exchange.sent, exchange.connecting) == (1.6, 0.0)
    assert told(exchange) == [
        ("svc", "a:80", "service-unreachable", 1.1, 0.0, 0.0),
        ("svc", "b:80", "status-503", 0.0, 1.3, 1.4),
        ("svc", "c:80", "answered", 0.0, 1.6, 1.7),
    ]
    assert [each.ended for each in exchange.all_tries()] == [1.2, 1.5, 2.0]


def test_a_last_try_that_failed_says_how() -> None:
    exchange = Exchange(1.0)
    send(exchange, "a:80", 1.3)
    exchange.try_outcome = "service-timeout"
    assert told(exchange) == [("svc", "a:80", "service-timeout", 0.0, 1.3, 0.0)]


def test_branches_that_do_not_count_are_among_the_tries() -> None:
    exchange = Exchange(1.0)
    one, two, idle = exchange.branch(), exchange.branch(), exchange.branch()
    send(one, "a:80", 1.1)
    send(two, "b:80", 1.2, 1.3)
    two.try_again("status-503", 1.4)
    send(two, "c:80", 1.5, 1.6)
    exchange.forgo(one, "outrun", 1.7)
    exchange.take(two)
    exchange.forgo(idle, "outrun", 1.7)
    assert told(exchange) == [
        ("svc", "a:80", "outrun", 0.0, 1.1, 0.0),
        ("svc", "b:80", "status-503", 0.0, 1.2, 1.3),
        ("svc", "c:80", "answered", 0.0, 1.5, 1.6),
    ]


def test_notes_and_steps_are_made_when_they_are_needed_and_are_limited() -> None:
    exchange = Exchange(1.0)
    assert (exchange.notes, exchange.steps, exchange.tried) == (None, None, None)
    for number in range(MOST_NOTES + 5):
        exchange.note(f"n{number}", number)
        exchange.step("limit", 1.0, 2.0, f"waited {number}")
        send(exchange, "a:80", 1.0)
        exchange.try_again("service-timeout", 2.0)
    exchange.note("n0", "again")
    assert exchange.notes is not None
    assert exchange.steps is not None
    assert exchange.tried is not None
    assert [len(exchange.notes), len(exchange.steps), len(exchange.tried)] == [MOST_NOTES] * 3
    assert exchange.notes["n0"] == "again"
    step = exchange.steps[-1]
    assert (step.name, step.began, step.ended, step.what) == ("limit", 1.0, 2.0, f"waited {MOST_NOTES - 1}")
