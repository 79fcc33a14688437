"""Middleware of a read-only API: checks on every request on its way to the application, headers on its way
back.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBLEM = "application/problem+json"
LONGEST_TARGET = 32768
"""Bytes of a path with its query."""
QUALITY = re.compile(r"\s*q\s*=\s*(0(\.\d{0,3})?|1(\.0{0,3})?)\s*", re.IGNORECASE)
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE = f"{NOTHING}; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
"""Content-Security-Policy of a page that is one file: its own scripts, styles and pictures, and no
connection to anywhere.
"""


class ReadOnlyMiddleware:
    """Checks the host, answers HEAD as GET without its body, and adds ETag and security headers; matching
    ETags become 304.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str] = ()):
        self.app, self.names = app, frozenset(name.lower() for name in ("localhost", *names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = BufferedResponse(scope, send)
        refusal = self.refusal(scope)
        get = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        await (refusal or self.app)(get, receive, answer.take)

    def refusal(self, scope: Scope) -> Response | None:
        """Why a request goes no further: a name that is not ours, as in DNS rebinding, or an address too
        long.
        """
        host = Headers(scope=scope).get("host", "")
        if not self.known(host):
            return problem(
                421, "This host name is not served here. Start the server with --allowed-host to serve it."
            )
        if len(scope["raw_path"]) + len(scope["query_string"]) > LONGEST_TARGET:
            return problem(414, f"The path with its query is longer than {LONGEST_TARGET} bytes.")
        return None

    def known(self, host: str) -> bool:
        """Whether a Host header is one of our names or an IP address, that no foreign name server can point
        at us.
        """
        match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(:\d{1,5})?", host.lower())
        if match is None:
            return False
        name = match[1]
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in self.names
        return True


class BufferedResponse:
    """Collects the application's answer, and sends it with headers when it is complete."""

    def __init__(self, scope: Scope, send: Send):
        self.scope, self.send = scope, send
        self.start: Message = {}
        self.body = b""

    async def take(self, message: Message) -> None:
        """The next part of the answer."""
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            if not message.get("more_body", False):
                await self.finish()

    async def finish(self) -> None:
        """Send the whole answer, or 304 where the client has it."""
        headers = MutableHeaders(raw=list(self.start["headers"]))
        status = self.start["status"]
        headers.update(SECURITY)
        headers["content-security-policy"] = (
            PAGE if headers.get("content-type", "").startswith("text/html") else NOTHING
        )
        headers["cache-control"] = "no-cache" if status == HTTPStatus.OK else "no-store"
        headers["vary"] = "Accept"
        if status == HTTPStatus.OK:
            headers["etag"] = f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'
            if has(Headers(scope=self.scope).getlist("if-none-match"), headers["etag"]):
                status = HTTPStatus.NOT_MODIFIED.value
                for name in ("content-length", "content-type"):
                    del headers[name]
        await self.send({**self.start, "status": status, "headers": headers.raw})
        empty = self.scope["method"] == "HEAD" or status == HTTPStatus.NOT_MODIFIED
        await self.send({"type": "http.response.body", "body": b"" if empty else self.body})


def has(conditions: Sequence[str], etag: str) -> bool:
    """Whether If-None-Match names an ETag, in the weak comparison of RFC 9110, section 13.1.2."""
    named = [tag.strip().removeprefix("W/") for condition in conditions for tag in condition.split(",")]
    return "*" in named or etag in named


def accepted(header: str | None, offered: Sequence[str]) -> str | None:
    """The media type to answer with, the first offered where the client does not mind; None where it takes
    none of them.

    The most specific range decides about a type, as in RFC 9110, section 12.5.1.
    """
    if not header:
        return offered[0]
    qualities: dict[str, float] = {}
    for part in header.split(","):
        media, *parameters = part.split(";")
        matches = [match for parameter in parameters if (match := QUALITY.fullmatch(parameter))]
        qualities[media.strip().lower()] = float(matches[0][1]) if matches else 1.0

    def quality(media: str) -> float:
        ranges = (media, media.partition("/")[0] + "/*", "*/*")
        return next((qualities[one] for one in ranges if one in qualities), 0.0)

    best = max(offered, key=quality)
    return best if quality(best) > 0 else None


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """An error as problem details, RFC 9457."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    return Response(json.dumps(content), status, dict(headers or {}), PROBLEM)
