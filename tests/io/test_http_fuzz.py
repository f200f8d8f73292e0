"""Responses spoiled on their way: an answer, or one of two errors; no exception, nor clean by chance."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bad_server import CLEAN, completion
from fuzz import budget, report

from sdg.io.chat import ChatClient
from sdg.io.http import Refused, Unanswered
from sdg.response import cut_off, parse_response

BODY = completion(CLEAN).content
LINES = [
    *["HTTP/1.1 200 OK"] * 6,
    *("HTTP/1.0 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 206 Partial Content", "HTTP/1.1 100 Continue"),
    *("HTTP/1.1 301 Moved", "HTTP/1.1 304 Not Modified", "HTTP/1.1 400 Bad", "HTTP/1.1 401 No"),
    *(
        "HTTP/1.1 429 Slow",
        "HTTP/1.1 500 Boom",
        "HTTP/1.1 599 x",
        "HTTP/2 200",
        "HTTP/1.1 2000 OK",
        "ICY 200 OK",
    ),
    *("HTTP/1.1  200", "200 OK", "", "GET / HTTP/1.1", "HTTP/1.1 101 Switching Protocols", "HTTP/1.1 ٢٠٠ OK"),
]
HEADERS = [
    *("Content-Type: application/json", "Retry-After: 9" * 40, "Retry-After: Fri, 31 Dec 99999 23:59:59 GMT"),
    *("Content-Length: -1", "Content-Length: 9" * 30, "Content-Length: x", "Content-Encoding: br"),
    *(
        "Content-Encoding: gzip",
        "Content-Encoding: deflate",
        "Transfer-Encoding: chunked",
        "Connection: close",
    ),
    *(
        "Location: file:///etc/passwd",
        "Set-Cookie: a=b",
        "X: " + "y" * 5000,
        "no colon",
        ": no name",
        " folded",
    ),
    *("Trailer: x", "Upgrade: websocket", "Nul: \0", "Té: é", "Transfer-Encoding: identity, chunked"),
]


def chunked(body: bytes, rng: random.Random) -> bytes:
    cuts = sorted(rng.randrange(len(body) + 1) for _ in range(rng.randrange(4)))
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if b > a]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def response(rng: random.Random) -> bytes:
    """A response, whole or spoiled: in its first line, its headers, its packing, its bytes, or its end."""
    lines = [rng.choice(LINES) if rng.random() < 0.3 else LINES[0]]
    body = BODY
    if rng.random() < 0.3:
        body = gzip.compress(body)
        lines.append("Content-Encoding: gzip")
    if rng.random() < 0.3:
        body = chunked(body, rng)
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(body) + (rng.randrange(-3, 4) if rng.random() < 0.2 else 0)}")
    while rng.random() < 0.3:
        lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(HEADERS))
    sent = "\r\n".join([*lines, "", ""]).encode() + body
    while rng.random() < 0.3:
        at = rng.randrange(len(sent) + 1)
        cut = rng.choice([0, 0, 1, 3, len(sent)])
        sent = sent[:at] + rng.choice([b"", b"\r\n", b"\0", rng.randbytes(3)]) + sent[at + cut :]
    return sent


@asynccontextmanager
async def sending(responses: list[bytes]) -> AsyncIterator[str]:
    """The address of a server that sends the last of these bytes, whatever it is asked, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        writer.write(responses[-1])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def outcome(client: ChatClient) -> str:
    try:
        answer = await client.ask({"messages": []})
    except (Unanswered, Refused) as error:
        said = str(error)
        assert said.isprintable(), said
        assert len(said) < 400, said
        return type(error).__name__
    found = parse_response(answer.text)
    return "clean" if (cut_off(found) if answer.cut_off else found).is_clean else found.status.value


async def spoil(count: int, rng: random.Random) -> Counter[str]:
    seen: Counter[str] = Counter()
    responses = [b""]
    async with (
        sending(responses) as url,
        ChatClient(url, "", timeout=30, attempts=1).connected() as client,
    ):
        for _ in range(count):
            responses.append(response(rng))
            what = await outcome(client)
            if what == "clean":  # only what came whole, and with a status of success
                assert responses[-1].split(b"\r\n")[0].split()[1:2] < [b"3"], responses[-1]
            seen[what] += 1
    return seen


def test_responses_spoiled_on_their_way() -> None:
    seen = asyncio.run(spoil(budget(500), random.Random(20261202)))
    report("HTTP responses", seen)
    assert min(seen[kind] for kind in ("clean", "Unanswered", "Refused")) > budget(500) / 50
