"""`POST` of each message to a URL, signed so that the receiver knows who sent it and when (extra `webhook`)."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import socket
import ssl
import time

from inspection.errors import ConfigInvalid, MissingExtra
from inspection.outputs.options import WebhookOptions
from inspection.outputs.sink import DeliveryFailed, DeliveryRefused, Message

try:
    import urllib3
    from urllib3 import HTTPConnectionPool as Plain
    from urllib3 import HTTPSConnectionPool as Encrypted
except ImportError as missing:
    raise MissingExtra(
        "A webhook needs urllib3.", hint="Install it with: pip install 'lightsout-inspection[webhook]'"
    ) from missing

_AGAIN = {408, 425, 429}  # beside 5xx: the request was sound, and may be taken another time
_SHOWN = 500  # bytes of an answer that are read, and shown in errors


class WebhookSink:
    """Sends each message's body as JSON; any 2xx answer means that the receiver has it.

    Headers: `X-Inspection-Kind` (result, alarm, state); `X-Inspection-Id`, the same for every try of one message and
    for no other message, so that a receiver can drop what it has already; `X-Inspection-Timestamp`, seconds since 1970
    of this try; with a secret `X-Inspection-Signature`: `sha256=` and the hexadecimal HMAC-SHA256 of
    `TIMESTAMP.BODY`. Errors name scheme, host and port of the URL and nothing else of it.

    Raises:
        ConfigInvalid: not an http or https URL, the secret's variable is not set, or `ca` cannot be read.
    """

    def __init__(self, options: WebhookOptions, line: str) -> None:
        self._options = options
        self._line = line
        try:
            url = urllib3.util.parse_url(options.url)
        except urllib3.exceptions.LocationParseError:  # whose text is the whole URL
            url = urllib3.util.Url()
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigInvalid("`url` must begin with http:// or https:// and name a host.", where="url")
        # Errors go to alarms, logs and other outputs; a password or a token in the URL must not.
        self._where = _origin(url)
        self._hidden = [options.url, url.request_uri, url.query or "", url.auth or ""]
        self._secret = _secret(options)
        self._tls = _tls(options)
        self._pool: urllib3.PoolManager | None = None
        self._connection: urllib3.connection.HTTPConnection | None = None  # the latest

    def open(self) -> None:
        """Makes ready; there is nothing to connect before the first message."""
        pool = urllib3.PoolManager(num_pools=1, maxsize=1, retries=False, ssl_context=self._tls)
        pool.pool_classes_by_scheme = {"http": self._watched(Plain), "https": self._watched(Encrypted)}
        self._pool = pool

    def deliver(self, message: Message) -> None:
        """See `Sink`. 408, 425, 429, 5xx and 3xx are `DeliveryFailed`; any other answer is `DeliveryRefused`."""
        if self._pool is None:
            raise DeliveryFailed("the connection was closed.", where=self._where)
        body = json.dumps(message.body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        # Half for the connection and half for each wait of the answer: together below the courier's time-out.
        patience = self._options.timeout * 0.4
        if self._options.gate and message.deadline is not None:
            patience = min(patience, max(message.deadline - time.monotonic(), 0.001))
        try:
            answer = self._pool.request(
                "POST",
                self._options.url,
                body=body,
                headers=self._headers(message, body),
                timeout=urllib3.Timeout(connect=patience, read=patience),
                redirect=False,
                preload_content=False,
            )
            said = answer.read(_SHOWN)
            if answer.read(1):
                answer.close()  # a long answer is not worth the wait; the connection is made anew
            else:
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise DeliveryFailed(f"no answer: {self._hide(str(error))}.", where=self._where) from error
        if 200 <= answer.status < 300:
            return
        text = self._hide(said.decode(errors="replace").strip()) or answer.reason
        what = f"answers {answer.status}: {text}."
        if answer.status in _AGAIN or answer.status >= 500:
            raise DeliveryFailed(what, where=self._where, retry_after=_retry_after(answer))
        if 300 <= answer.status < 400:
            target = _target(answer)
            raise DeliveryFailed(what, where=self._where, hint=f"It points to {target}: name that in `url`.")
        raise DeliveryRefused(what, where=self._where)

    def close(self) -> None:
        """See `Sink`."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.clear()
        # That leaves a request that is under way alone.
        if (connection := self._connection) is not None and isinstance(connection.sock, socket.socket):
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _watched(self, pool: type[Plain]) -> type[Plain]:
        """The pool, of connections that `close` can end."""
        sink = self

        class Connection(pool.ConnectionCls):  # type: ignore[name-defined,misc]
            def connect(self) -> None:
                sink._connection = self
                super().connect()

        class Pool(pool):  # type: ignore[valid-type,misc]
            ConnectionCls = Connection

        return Pool

    def _hide(self, text: str) -> str:
        """Some receivers repeat what they were asked for."""
        for secret in self._hidden:
            if len(secret) > 1:  # a path of `/` tells nothing
                text = text.replace(secret, "...")
        return text

    def _headers(self, message: Message, body: bytes) -> dict[str, str]:
        now = str(int(time.time()))
        headers = {
            **self._options.headers,
            "Content-Type": "application/json",
            "X-Inspection-Line": self._line.encode("ascii", "replace").decode(),
            "X-Inspection-Kind": message.kind,
            # The sequence begins anew when the line does; together with its time it is one message's for ever.
            "X-Inspection-Id": f"{round(message.wall * 1000)}-{message.sequence}",
            "X-Inspection-Timestamp": now,
        }
        if self._secret is not None:
            headers["X-Inspection-Signature"] = signature(self._secret, now, body)
        return headers


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """What `X-Inspection-Signature` must be."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _origin(url: urllib3.util.Url) -> str:
    return f"{url.scheme}://{url.netloc}"


def _target(answer: urllib3.BaseHTTPResponse) -> str:
    """Where a redirection leads, without what may be secret."""
    try:
        target = urllib3.util.parse_url(answer.headers.get("Location", ""))
    except urllib3.exceptions.LocationParseError:
        return "another URL"
    return f"another URL at {_origin(target)}" if target.scheme and target.host else "another path"


def _retry_after(answer: urllib3.BaseHTTPResponse) -> float | None:
    try:
        return urllib3.Retry().get_retry_after(answer)
    except urllib3.exceptions.InvalidHeader:
        return None


def _secret(options: WebhookOptions) -> bytes | None:
    if options.secret_env is None:
        return None
    if not (secret := os.environ.get(options.secret_env)):
        raise ConfigInvalid(
            f"the environment variable {options.secret_env} is not set.",
            where="secret_env",
            hint="Set it to the key that the receiver checks signatures with.",
        )
    return secret.encode()


def _tls(options: WebhookOptions) -> ssl.SSLContext | None:
    try:
        return ssl.create_default_context(cafile=options.ca)
    except OSError as error:
        raise ConfigInvalid(
            f"`ca` cannot be read: {error}.", where=str(options.ca), hint="It is a PEM file of certificates."
        ) from error
