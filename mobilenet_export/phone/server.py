"""The server of the page: a fixed table of paths, a token, and nothing else.

The token travels in the fragment of the address, which no browser sends, and comes back in a header, which no other
page can set. The Host header has to be the printed one, so that no foreign name leads here (DNS rebinding).
"""

import base64
import errno
import gzip
import hashlib
import hmac
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mobilenet_export.bundle import EXPORT_AGAIN
from mobilenet_export.errors import MissingError, MnxError, explain_error
from mobilenet_export.phone.assets import PAGE, Resource

TOKEN_HEADER = "X-Mnx-Token"
_IDLE_S = 60.0
"""After which a connection that sends nothing is closed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request for data gets: a JSON document, and what is to happen once it was sent."""

    document: Any
    then: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Site:
    """All that is served.

    Attributes:
        resources: Path → file.
        documents: Path → JSON document; the token is needed.
        posts: Path → what takes a body; the token is needed.
        token: That the page sends.
        most_bytes: Of a body.
    """

    resources: Mapping[str, Resource]
    documents: Mapping[str, Any]
    posts: Mapping[str, Callable[[bytes], Answer]]
    token: str
    most_bytes: int


class PageServer(ThreadingHTTPServer):
    """Serves a site at one address until it is closed.

    Raises:
        MissingError: The port is taken, or the address is not this computer's.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, site: Site, context: ssl.SSLContext | None = None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.site, self._context = site, context
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise _cannot_listen(host, port, error) from None
        except OverflowError:
            raise MissingError(f"there is no port {port}", "give --port a number up to 65535") from None
        self.headers = _headers()
        authority = f"[{host}]" if ":" in host else host
        self.origin = f"{'https' if context else 'http'}://{authority}:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="phone", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[Any, Any]:
        """Take a connection; the handshake is left to the thread that reads from it."""
        connection, address = super().get_request()
        if self._context:
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let go of a connection that broke: the tab was closed, or speaks another protocol."""


def _cannot_listen(host: str, port: int, error: OSError) -> MissingError:
    if error.errno in _TAKEN:
        return MissingError(f"port {port} of {host} is taken", "give another --port; 0 takes a free one")
    return MissingError(
        f"cannot listen at {host}, port {port}: {error.strerror}", "give another --host or --port"
    )


_TAKEN = {errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)}


def _headers() -> dict[str, str]:
    """What the browser is told about every answer."""
    found = re.search(
        r'<script type="importmap">(.*?)</script>', (PAGE / "index.html").read_text("utf-8"), re.DOTALL
    )
    assert found
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{digest}'; style-src 'self'; "
        "img-src 'self' blob:; connect-src 'self'; worker-src 'self' blob:; media-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(self)",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "mnx", ""
    timeout = _IDLE_S

    def do_GET(self) -> None:
        site = self.server.site
        if not self._is_addressed():
            return
        if (resource := site.resources.get(self.path)) is not None:
            if not resource.secret or self._has_token():
                self._send_file(resource)
        elif self.path not in site.documents:
            self._refuse(
                HTTPStatus.NOT_FOUND, "there is nothing here", "open the address that mnx phone printed"
            )
        elif self._has_token():
            self._send_json(HTTPStatus.OK, site.documents[self.path])

    def do_POST(self) -> None:
        site = self.server.site
        if not self._is_addressed() or (body := self._read_body()) is None:
            return
        if self.path not in site.posts:
            self._refuse(
                HTTPStatus.NOT_FOUND, "nothing is taken here", "open the address that mnx phone printed"
            )
        elif self._has_token():
            try:
                answer = site.posts[self.path](body)
            except Exception as error:  # what a browser sends ends no server
                status = (
                    HTTPStatus.BAD_REQUEST
                    if isinstance(error, MnxError)
                    else HTTPStatus.INTERNAL_SERVER_ERROR
                )
                message, hint, _ = explain_error(error)
                self._refuse(status, message, hint)
                return
            try:
                self._send_json(HTTPStatus.OK, answer.document)
            finally:  # what was measured counts, even where the tab is gone by now
                answer.then()

    def _is_addressed(self) -> bool:
        """Whether the page was opened under the address that was printed."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin", self.server.origin)
        if (
            f"://{host}" == self.server.origin[self.server.origin.index(":") :]
            and origin == self.server.origin
        ):
            return True
        self.close_connection = True
        text = f"this page is not at {host[:100]}"
        self._refuse(HTTPStatus.MISDIRECTED_REQUEST, text, "open the address that mnx phone printed")
        return False

    def _has_token(self) -> bool:
        if hmac.compare_digest(self.headers.get(TOKEN_HEADER, "").encode(), self.server.site.token.encode()):
            return True
        hint = "scan the code again: each run of mnx phone has an address of its own"
        self._refuse(
            HTTPStatus.UNAUTHORIZED, "the address of this page is not the one that was printed", hint
        )
        return False

    def _read_body(self) -> bytes | None:
        length, most = self.headers.get("Content-Length", ""), self.server.site.most_bytes
        if not re.fullmatch(r"\d{1,12}", length):
            self.close_connection = True
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "a body without a length", "send Content-Length")
            return None
        if int(length) > most:
            self.close_connection = True
            text = f"a body of {int(length):,} bytes; {most:,} is the most"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text, "open the page again")
            return None
        return self.rfile.read(int(length))

    def _send_file(self, resource: Resource) -> None:
        try:
            data = resource.path.read_bytes()
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND, f"{resource.path.name} is gone", EXPORT_AGAIN)
            return
        extra = {}
        if resource.packed and "gzip" in self.headers.get("Accept-Encoding", ""):
            extra = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        elif resource.packed:
            data = gzip.decompress(data)
        self._send(HTTPStatus.OK, data, resource.content_type, extra)

    def _send_json(self, status: HTTPStatus, document: Any) -> None:
        self._send(status, json.dumps(document).encode(), "application/json", {})

    def _refuse(self, status: HTTPStatus, message: str, hint: str) -> None:
        self._send_json(status, {"error": message, "hint": hint})

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is none, in our own form."""
        self.close_connection = True
        self._refuse(
            HTTPStatus(code), message or HTTPStatus(code).phrase, explain or "open the address in a browser"
        )

    def _send(self, status: HTTPStatus, data: bytes, content_type: str, extra: Mapping[str, str]) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            headers = {"Content-Type": content_type, "Content-Length": str(len(data))}
            for name, value in (headers | self.server.headers | dict(extra)).items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the library is silent."""
