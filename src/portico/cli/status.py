"""What `portico status`, `portico reload` and `portico purge` print of what the agent has answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB")


def status_text(state: Mapping[str, Any]) -> str:
    """Return the status as text."""
    return "\n".join(_status_lines(state))


def _status_lines(state: Mapping[str, Any]) -> Iterator[str]:
    yield f"portico {state['version']}, {state['file']}, listening on {', '.join(state['listen'])}"
    yield f"revision {state['revision']}, loaded {state['loaded_at']} ({state['origin']})"
    last = state["last_reload"]
    if last is not None and not last["ok"]:
        yield f"the last reload, {last['at']} ({last['origin']}), has failed, and nothing was changed by it:"
        yield from _errors(last)
    yield ""
    head = ("process", "pid", "state", "up", "rev", "conns", "in flight", "requests", "memory", "lag", "worst", "gc")
    supervisor = state["supervisor"]
    rows = [("supervisor", str(supervisor["pid"]), "", "", "", "", "", "", _size(supervisor["memory"]), "", "", "")]
    yield from _table([head, *rows, *(_process(each) for each in state["processes"])])
    services = [(name, *_target(each)) for name, targets in state["services"].items() for each in targets]
    if services:
        yield ""
        yield from _table([("service", "target", "state", "since", "conns", ""), *services])
    yield from _protection(state["breakers"], state["concurrency"], state["retries"])
    yield from _discovery(state["discovery"])
    database = state.get("consumer_database")
    if database is not None:
        yield ""
        yield f"consumers in {database['file']}: {database['trouble'] or 'changes are seen'}"
    store = state.get("state")
    if store is not None:
        yield ""
        yield _store(store)
    if state["certificates"]:
        yield ""
        rows_ = [(each["file"], each["expires"]) for each in state["certificates"]]
        yield from _table([("certificate", "expires"), *rows_])


def _errors(last: Mapping[str, Any]) -> Iterator[str]:
    """Tell what was wrong, by the objects of the file where it is known whose it is."""
    told = [each for each in last["problems"] if each["severity"] == "error"]
    by_object: dict[str, list[str]] = {}
    for each in told:
        hint = f" (hint: {each['hint']})" if each["hint"] else ""
        by_object.setdefault(each["object"], []).append(f"{each['place']}: {each['message']}{hint}")
    known = {line for lines in by_object.values() for line in lines}
    for error in last["errors"]:  # of a worker, or of the supervisor
        if error not in known:
            yield f"  {error}"
    for name, lines in by_object.items():
        if name:
            yield f"  {name}:"
        yield from (f"    {line}" if name else f"  {line}" for line in lines)


def _target(target: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a target: what is known of its health, by the agent first."""
    states = [target["health"]] if "health" in target else []
    if not target["reachable"]:
        states.append(f"NOT REACHABLE for {_workers(target['unreachable_by'])}")
    elif not states:
        states.append("reachable")
    if target["ejected_by"]:
        states.append(f"ejected by {_workers(target['ejected_by'])}: {target['ejected_for']}")
    notes = [
        f"{key} {target[key]}" for key, usual in (("weight", 1), ("priority", 0)) if target.get(key, usual) != usual
    ]
    notes += [f"{key}={value}" for key, value in target.get("metadata", {}).items()]
    return target["address"], ", ".join(states), target.get("since", ""), str(target["connections"]), ", ".join(notes)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _protection(
    breakers: Mapping[str, Mapping[str, Any]], concurrency: Mapping[str, Mapping[str, int]], retries: Mapping[str, int]
) -> Iterator[str]:
    """Say of each service that has any what its breaker is, how much room there is, and how many tries are left."""
    names = dict.fromkeys((*breakers, *concurrency, *retries))
    if names:
        yield ""
        rows = []
        for name in names:
            breaker, room = breakers.get(name, {}), concurrency.get(name, {})
            state = breaker.get("state", "")
            rows.append(
                (
                    name,
                    "OPEN" if state == "open" else state,
                    breaker.get("since", ""),
                    f"{room['taken']} of {room['limit']}" if room else "",
                    str(room["waiting"]) if room else "",
                    str(retries.get(name, "")),
                    breaker.get("why", ""),
                )
            )
        yield from _table([("service", "breaker", "since", "under way", "waiting", "retries left", ""), *rows])


def _store(state: Mapping[str, Any]) -> str:
    """Say where the state is, and how full that is, or whether it can be asked."""
    said = [f"state in {state['store']}" + (f", {state['path']}" if state["path"] else "")]
    if state["in_trouble"]:
        said.append(f"NOT THERE for {_workers(state['in_trouble'])}: {state['trouble']}")
    for name in ("volatile", "durable"):
        space = state[name]
        if space is not None:
            evicted = f" ({space['evicted']} evicted)" if space["evicted"] else ""
            said.append(f"{name} {_size(space['used']) or '0 B'} of {_size(space['size'])}{evicted}")
    said.append("1 failure" if state["failures"] == 1 else f"{state['failures']} failures")
    return "; ".join(said)


def _discovery(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say where targets are from that are found out, and why they cannot be, where that is so."""
    if found:
        yield ""
        rows = [(name, each["source"], str(each["targets"]), each["trouble"] or "none") for name, each in found.items()]
        yield from _table([("service", "targets from", "found", "trouble"), *rows])


def _process(each: Mapping[str, Any]) -> tuple[str, ...]:
    state = each["state"]
    if state == "stuck":
        state = f"STUCK for {each['silent']:.0f} s"
    is_worker = each["name"] != "agent"
    return (
        each["name"],
        str(each["pid"]),
        state,
        _span(each["uptime"]),
        str(each["revision"]) + (f" (+{each['retired']})" if each["retired"] else ""),
        str(each["connections"]) if is_worker else "",
        str(each["in_flight"]) if is_worker else "",
        str(each["requests"]) if is_worker else "",
        _size(each["memory"]),
        f"{each['loop_lag'] * 1e3:.1f} ms",
        f"{each['loop_lag_max'] * 1e3:.1f} ms",
        f"{each['gc_pause_max'] * 1e3:.1f} ms",
    )


def reload_text(result: Mapping[str, Any], *, dry_run: bool) -> str:
    """Return how a reload went, or would go, as text."""
    lines = [f"  {_WORDS[kind]}: {line}" for kind, found in result["changes"].items() for line in found]
    if not result["ok"]:
        rest = "" if dry_run else f"; revision {result['revision']} goes on"
        return "\n".join([*result["errors"], f"nothing has changed{rest}"])
    if not lines:
        return "\n".join([*result["warnings"], "nothing changed"])
    first = "this would change:" if dry_run else f"revision {result['revision']} after {result['seconds']:.1f} s:"
    return "\n".join([*result["warnings"], first, *lines])


def purge_text(told: Mapping[str, Any]) -> str:
    """Return what was purged as text."""
    purged = told["purged"]
    if purged["all"]:
        return "purged everything"
    counts = [(len(purged["urls"]), "URL"), (len(purged["tags"]), "tag")]
    return "purged " + " and ".join(f"{count} {noun}" + ("s" if count > 1 else "") for count, noun in counts if count)


_WORDS = {
    "routes_added": "+ route",
    "routes_removed": "- route",
    "routes_changed": "~ route",
    "chains": "~ chain of",
    "services_added": "+ service",
    "services_removed": "- service",
    "services_changed": "~ service",
    "settings": "~ setting",
}


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _size(count: float) -> str:
    if not count:
        return ""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}"
        count /= 1024
    raise AssertionError


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
