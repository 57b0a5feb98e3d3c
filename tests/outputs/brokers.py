"""A real mosquitto, with or without TLS, and an independent subscriber."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.outputs.conftest import free_port, wait_for


class Mosquitto:
    """A broker of its own, in a folder of its own, which can be killed and started again."""

    def __init__(self, folder: Path, *lines: str) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            assert not os.environ.get("CI"), "mosquitto is missing"
            pytest.skip("no mosquitto: .ci/run installs it")
        self.port = free_port()
        self._file = folder / "mosquitto.conf"
        given = "\n".join(lines) or "allow_anonymous true"
        user = "user root\n" if os.geteuid() == 0 else ""  # else it would not read the test's own files
        self._file.write_text(f"{user}listener {self.port} 127.0.0.1\nmax_queued_messages 0\n{given}\n")
        self._command = [program, "-c", str(self._file)]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert self._process is None
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._listens)

    def kill(self) -> None:
        """SIGKILL, and then nothing answers there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def pause(self, signal: int) -> None:
        """SIGSTOP or SIGCONT: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "mosquitto did not start"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Subscriber:
    """paho itself, subscribed at QoS 2; it comes back by itself, with its session."""

    def __init__(self, port: int, topic: str = "#", *, ca: Path | None = None, client_id: str = "reader") -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.retained: list[bool] = []
        self.protocol = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        if ca is not None:
            self._client.tls_set(str(ca))
        subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(topic, 2)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = self._on_message
        self.subscribed = subscribed
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(30)

    def _on_message(self, _client: Any, _user: Any, message: paho.MQTTMessage) -> None:
        self.messages.append((message.topic, bytes(message.payload)))

    def on(self, topic: str) -> list[bytes]:
        return [payload for where, payload in list(self.messages) if where == topic]

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, 1).wait_for_publish(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class SlowProxy:
    """TCP between a line and a broker, which can be stopped: it takes connections then, and passes nothing on."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._flows = threading.Event()
        self._flows.set()
        self._ends: list[socket.socket] = []
        self.stopped = 0  # connections and packets that it has taken while it was stopped
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def _start(self, target: Any, *arguments: Any) -> None:
        threading.Thread(target=target, args=arguments, name="slow-proxy", daemon=True).start()

    def stop(self) -> None:
        self.stopped = 0
        self._flows.clear()

    def go_on(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Ends all connections; what they had not passed on is lost."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.go_on()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                self._start(self._connect, self._listener.accept()[0])

    def _connect(self, line: socket.socket) -> None:
        self._wait()
        broker = socket.create_connection(("127.0.0.1", self._target))
        self._ends += [line, broker]
        self._start(self._pass_on, line, broker)
        self._start(self._pass_on, broker, line)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # cut
            while data := source.recv(65536):
                self._wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> None:
        if not self._flows.is_set():
            self.stopped += 1
            self._flows.wait()


class Certificates:
    """A certificate authority, a server for 127.0.0.1 and a client, as PEM files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.ca = self._write("ca", self._certificate(self._name, self._key, authority=True))
        self.server, self.server_key = self._issue("server")
        self.client, self.client_key = self._issue("client")

    def _issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / f"{name}.key"
        path.write_bytes(secret)
        return self._write(name, self._certificate(subject, key, authority=False)), path

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path
