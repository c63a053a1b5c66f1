"""A DNS server on loopback, over UDP and TCP, with answers that a test changes while it runs."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Key = tuple[str, str]


class DnsServer:
    """Answers questions out of `records`; what is in `failures` it answers with that code, or not at all for None."""

    def __init__(self) -> None:
        self.records: dict[Key, tuple[int, list[str]]] = {}
        self.additional: dict[Key, list[Key]] = {}
        """The records that an answer brings along."""
        self.failures: dict[str, dns.rcode.Rcode | None] = {}
        self.udp_limit = 1232
        self.asked: Counter[tuple[str, str, str]] = Counter()
        """How often each name and kind was asked for, by `udp` or `tcp`."""
        self._tcp = socket.create_server(("127.0.0.1", 0))  # first: of UDP fewer ports are taken
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def set(self, name: str, kind: str, *values: str, ttl: int = 60) -> None:
        """Have a name answered with these values; with none where there are none."""
        self.records[name, kind] = ttl, list(values)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tcp.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while True:
            data, client = self._udp.recvfrom(4096)
            if not data:
                return
            answer = self._answer(data, "udp")
            if answer is None:
                continue
            wire = answer.to_wire(max_size=65535)
            if len(wire) > self.udp_limit:
                short = dns.message.make_response(dns.message.from_wire(data))
                short.flags |= dns.flags.TC
                wire = short.to_wire()
            self._udp.sendto(wire, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                client, _ = self._tcp.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                (size,) = struct.unpack("!H", stream.read(2))
                answer = self._answer(stream.read(size), "tcp")
                if answer is not None:
                    wire = answer.to_wire(max_size=65535)
                    stream.write(struct.pack("!H", len(wire)) + wire)

    def _answer(self, data: bytes, way: str) -> dns.message.Message | None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind, way] += 1
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if name in self.failures:
            code = self.failures[name]
            if code is None:
                return None
            answer.set_rcode(code)
            return answer
        if not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer
        found = self._records(name, kind) or self._records(name, "CNAME")
        if found is not None:
            answer.answer.append(found)
            if found.rdtype == dns.rdatatype.CNAME and kind != "CNAME":
                target = found[0].target.to_text(omit_final_dot=True)
                further = self._records(target, kind)
                if further is not None:
                    answer.answer.append(further)
        for more in self.additional.get((name, kind), ()):
            beside = self._records(*more)
            assert beside is not None
            answer.additional.append(beside)
        return answer

    def _records(self, name: str, kind: str) -> dns.rrset.RRset | None:
        ttl, values = self.records.get((name, kind), (0, []))
        return dns.rrset.from_text(dns.name.from_text(name), ttl, "IN", kind, *values) if values else None
