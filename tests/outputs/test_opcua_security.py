"""Who may connect to the OPC UA server and who may command the line by it."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("asyncua")

from asyncua import Client, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from inspection.errors import ConfigInvalid, MissingExtra
from inspection.outputs.opcua import OpcUaSink
from inspection.outputs.options import OpcUaOptions
from tests.outputs.opcua_client import CAUSE, Peer, start_arguments
from tests.outputs.scripted_line import ScriptedLine

pytestmark = [pytest.mark.line, pytest.mark.slow]

HALT = "VisionStateMachine.Halt"
USERS = "INSPECTION_TEST_OPCUA_USERS"


@dataclass
class Plant:
    """`guarded` has users, trusted certificates and only protected endpoints; `readers` lets anybody read."""

    line: ScriptedLine
    guarded: OpcUaSink
    readers: OpcUaSink
    folder: Path
    certificates: dict[str, tuple[Path, Path]] = field(default_factory=dict)

    def security(self, name: str, mode: str = "SignAndEncrypt") -> str:
        certificate, key = self.certificates[name]
        return f"Basic256Sha256,{mode},{certificate},{key},{self.folder / 'store' / 'certificate.der'}"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("plant")
    trusted = folder / "trusted"
    trusted.mkdir()
    certificates = {}
    for name in ("plc", "operator", "stranger"):
        certificates[name] = folder / f"{name}.der", folder / f"{name}.pem"
        asyncio.run(
            setup_self_signed_certificate(
                certificates[name][1],
                certificates[name][0],
                "urn:inspection:test",
                "127.0.0.1",
                [ExtendedKeyUsageOID.CLIENT_AUTH],
                {"commonName": name},
            )
        )
    for name in ("plc", "operator"):
        (trusted / f"{name}.der").write_bytes(certificates[name][0].read_bytes())
    os.environ[USERS] = "line:sesame open, maintenance:p:q"
    try:
        with ScriptedLine() as line:

            def serve(**options: Any) -> OpcUaSink:
                told = OpcUaOptions(kind="opcua", port=0, users_env=USERS, **options)
                sink = OpcUaSink(told, line, "line", line.alarm)
                line.attach(sink)
                return sink

            guarded = serve(security=("sign", "encrypt"), trusted=trusted, store=folder / "store")
            readers = serve(anonymous=True, store=folder / "store")
            yield Plant(line, guarded, readers, folder, certificates)
    finally:
        del os.environ[USERS]


def refused(error: type[BaseException], peer: Peer) -> None:
    async def run() -> None:
        with pytest.raises(error):
            async with peer:
                pass

    asyncio.run(run())


async def command(peer: Peer) -> None:
    """Something that only those may do who may command the line."""
    async with peer:
        await peer.call(HALT, *CAUSE)
        assert await peer.state() == "Halted"
        await peer.call("VisionStateMachine.Reset", *CAUSE)


@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
def test_a_user_with_the_right_password_commands_the_line_over_a_protected_channel(plant: Plant, mode: str) -> None:
    for user, password in (("line", "sesame open"), ("maintenance", "p:q")):
        peer = Peer(plant.guarded.url, user=user, password=password, security=plant.security("plc", mode))
        asyncio.run(command(peer))


def test_a_password_is_not_sent_in_clear_over_an_open_channel(plant: Plant) -> None:
    async def run() -> None:
        async with Peer(plant.readers.url, user="line", password="sesame open") as peer:
            endpoints = await peer.client.get_endpoints()
            (plain,) = [one for one in endpoints if one.SecurityMode == ua.MessageSecurityMode.None_]
            (token,) = [one for one in plain.UserIdentityTokens if one.TokenType == ua.UserTokenType.UserName]
            assert token.SecurityPolicyUri.endswith("#Basic256Sha256")
            await peer.call(HALT, *CAUSE)
            await peer.call("VisionStateMachine.Reset", *CAUSE)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("user", "password"), [("line", "sesame"), ("line", ""), ("nobody", "sesame open"), ("maintenance", "p")]
)
def test_a_wrong_name_or_password_is_refused_and_alarmed(plant: Plant, user: str, password: str) -> None:
    peer = Peer(plant.guarded.url, user=user, password=password, security=plant.security("plc"))
    refused(ua.uaerrors.BadUserAccessDenied, peer)
    assert "opcua-login-refused" in {code for code, _ in plant.line.alarms}


def test_nobody_is_let_in_without_a_user_where_there_are_users(plant: Plant) -> None:
    refused(ua.uaerrors.BadIdentityTokenRejected, Peer(plant.guarded.url, security=plant.security("plc")))


def test_an_untrusted_client_is_refused_and_its_certificate_kept_for_a_person_to_trust(plant: Plant) -> None:
    stranger = Peer(plant.guarded.url, user="line", password="sesame open", security=plant.security("stranger"))
    refused(ua.uaerrors.BadCertificateUntrusted, stranger)
    assert "opcua-client-refused" in {code for code, _ in plant.line.alarms}
    (kept,) = (plant.folder / "store" / "rejected").iterdir()
    assert kept.read_bytes() == plant.certificates["stranger"][0].read_bytes()
    moved = plant.folder / "trusted" / kept.name
    kept.rename(moved)  # what the person does; no restart
    try:
        again = Peer(plant.guarded.url, user="line", password="sesame open", security=plant.security("stranger"))
        asyncio.run(command(again))
    finally:
        moved.unlink()


def test_a_user_with_a_trusted_certificate_commands_the_line(plant: Plant) -> None:
    async def as_user(name: str) -> None:
        peer = Peer(plant.guarded.url, security=plant.security("plc"))
        certificate, key = plant.certificates[name]
        await peer.client.load_client_certificate(str(certificate))
        await peer.client.load_private_key(str(key))
        await command(peer)

    asyncio.run(as_user("operator"))
    with pytest.raises(ua.uaerrors.BadUserAccessDenied):
        asyncio.run(as_user("stranger"))


def test_where_there_are_users_others_read_and_listen_but_command_nothing(plant: Plant) -> None:
    async def run() -> None:
        # Also one whose application has a trusted certificate: that is no user.
        for security in (None, plant.security("plc")):
            async with Peer(plant.readers.url, security=security) as peer:
                assert await peer.state() in ("Preoperational", "Halted", "Ready")
                await peer.listen(1024)
                for method in (HALT, "VisionStateMachine.Reset"):
                    with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                        await peer.call(method, *CAUSE)
                with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                    await peer.call("VisionStateMachine.AutomaticModeStateMachine.StartSingleJob", *start_arguments())
                plant.line.start()
                plant.line.trigger(part=f"read by {security}")
                await peer.result_of(f"read by {security}")
                plant.line.stop()
                with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                    await peer.client.nodes.objects.add_folder(1, "mine")

    asyncio.run(run())


def test_an_open_channel_is_of_no_use_where_none_is_offered(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    # A client that goes on although the server offers it no such endpoint.
    monkeypatch.setattr(Client, "find_endpoint", staticmethod(lambda endpoints, *_: endpoints[0]))
    monkeypatch.setattr(Client, "_encrypt_password", lambda client, password, uri: (password.encode(), None))

    async def run() -> None:
        client = Client(plant.guarded.url, timeout=20)
        client.application_uri = "urn:inspection:test"
        await client.connect_socket()
        try:
            await client.send_hello()
            await client.open_secure_channel()
            offered = await client.get_endpoints()  # discovery is open, as it must be
            assert {one.SecurityMode for one in offered} == {
                ua.MessageSecurityMode.Sign, ua.MessageSecurityMode.SignAndEncrypt
            }  # fmt: skip
            await client.create_session()
            # asyncua itself serves a session that nobody has activated where the channel has no security.
            with pytest.raises(ua.uaerrors.BadSessionNotActivated):
                await client.nodes.server_state.read_value()
            with pytest.raises(ua.uaerrors.BadSessionNotActivated):
                await client.get_node(ua.NodeId("VisionSystem", 1)).call_method("2:Halt")
            with pytest.raises(ua.uaerrors.BadSecurityModeInsufficient):
                await client.activate_session(username="line", password="sesame open")
            with pytest.raises(ua.uaerrors.BadSessionNotActivated):
                await client.nodes.server_state.read_value()
        finally:
            client.disconnect_socket()

    asyncio.run(run())


def test_a_session_cannot_be_taken_over_by_guessing_its_token(plant: Plant) -> None:
    async def run() -> None:
        async with Peer(plant.readers.url, user="line", password="sesame open") as peer:
            token = peer.client.uaclient.session.authentication_token
            assert token.NodeIdType == ua.NodeIdType.ByteString
            assert len(token.Identifier) == 32
            other = Client(plant.readers.url, timeout=20)
            await other.connect_socket()
            try:
                await other.send_hello()
                await other.open_secure_channel()
                await other.create_session()
                guessed = other.uaclient.session.authentication_token
                assert guessed.Identifier != token.Identifier
            finally:
                other.disconnect_socket()

    asyncio.run(run())


def test_a_password_under_an_old_cipher_or_for_another_session_is_refused(plant: Plant) -> None:
    gate = plant.guarded._server._server.iserver  # type: ignore[union-attr]

    class Session:
        nonce = b"n" * 32

    def token(algorithm: str, plain: bytes) -> ua.UserNameIdentityToken:
        from asyncua.crypto import uacrypto

        encrypted = uacrypto.encrypt_rsa_oaep(gate.certificate.public_key(), plain)
        return ua.UserNameIdentityToken(
            PolicyId="username", UserName="line", Password=encrypted, EncryptionAlgorithm=algorithm
        )

    oaep = "http://www.w3.org/2001/04/xmlenc#rsa-oaep"
    secret = b"sesame open"
    length = (len(secret) + 32).to_bytes(4, "little")
    good = token(oaep, length + secret + b"n" * 32)
    assert gate.decrypt_user_token(Session, good) == ("line", "sesame open")
    for bad in (
        token(oaep, length + secret + b"m" * 32),  # recorded from another session
        token("http://www.w3.org/2001/04/xmlenc#rsa-1_5", length + secret + b"n" * 32),
        token(oaep, b"xy"),
    ):
        with pytest.raises(ServiceError):
            gate.decrypt_user_token(Session, bad)


def test_the_server_keeps_a_certificate_and_a_key_that_only_it_may_read(plant: Plant) -> None:
    store = plant.folder / "store"
    assert stat.S_IMODE((store / "key.pem").stat().st_mode) == 0o600
    certificate = x509.load_der_x509_certificate((store / "certificate.der").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uri == "urn:lightsout-inspection:line"
    years = (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days / 365
    assert years >= 10

    async def told() -> str:
        async with Peer(plant.readers.url) as peer:
            return str((await peer.client.get_endpoints())[0].Server.ApplicationUri)

    assert asyncio.run(told()) == uri


@pytest.mark.parametrize(
    ("options", "users", "message"),
    [
        ({"users_env": USERS}, None, "no `name:password` pairs"),
        ({"users_env": USERS}, "line", "no `name:password` pairs"),
        ({"anonymous": False}, None, "nobody may connect"),
        ({"certificate": "only.der"}, None, "belong together"),
        ({"certificate": "no.der", "key": "no.pem"}, None, "no certificate"),
        ({"trusted": "nowhere"}, None, "cannot be read"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], users: str | None, message: str
) -> None:
    monkeypatch.delenv(USERS, raising=False)
    if users is not None:
        monkeypatch.setenv(USERS, users)
    given = {
        key: tmp_path / value if key in ("certificate", "key", "trusted") else value for key, value in options.items()
    }
    with ScriptedLine() as line:
        sink = OpcUaSink(OpcUaOptions(kind="opcua", port=0, store=tmp_path, **given), line, "line", line.alarm)
        with pytest.raises(ConfigInvalid, match=message) as raised:
            sink.open()
        assert raised.value.where
        assert not sink.url


@pytest.mark.parametrize(
    ("host", "security", "users", "expected"),
    [
        ("0.0.0.0", ("none",), None, "any client command"),
        ("::", ("none",), None, "any client command"),
        ("192.168.7.1", ("none",), None, "any client command"),
        ("line7.plant", ("none",), None, "any client command"),
        ("192.168.7.1", ("none", "encrypt"), None, "any client command"),  # `encrypt` keeps nobody off `none`
        ("192.168.7.1", None, None, "any client command"),
        ("192.168.7.1", ("encrypt",), None, "any client command"),  # with any certificate that it made itself
        ("192.168.7.1", ("none",), USERS, "neither signed nor encrypted"),
        ("192.168.7.1", ("none", "encrypt"), USERS, None),
        ("127.0.0.1", ("none",), None, None),
        ("::1", ("none",), None, None),
        ("localhost", ("none",), None, None),
    ],
)
def test_a_server_without_protection_is_told_where_others_can_reach_it(
    host: str,
    security: tuple[Literal["none", "sign", "encrypt"], ...] | None,
    users: str | None,
    expected: str | None,
) -> None:
    given: dict[str, Any] = {} if security is None else {"security": security}
    told = OpcUaOptions(kind="opcua", host=host, users_env=users, **given).unprotected
    assert (told is None) == (expected is None)
    assert expected is None or expected in (told or "")
    assert OpcUaOptions(kind="opcua", host=host, trusted=Path("trusted")).unprotected is None


def test_an_anonymous_command_that_others_can_give_is_alarmed_at_the_start(tmp_path: Path) -> None:
    with ScriptedLine() as line:
        # A name that stands for loopback, so that nobody else is let in here; which the server cannot know.
        sink = OpcUaSink(OpcUaOptions(kind="opcua", host="127.1", port=0, store=tmp_path), line, "line", line.alarm)
        sink.open()
        try:
            # It is true: nobody has said who they are.
            asyncio.run(command(Peer(sink.url)))
            assert [text for code, text in line.alarms if code == "opcua-unprotected"]
        finally:
            sink.close()


def test_trusted_certificates_and_a_door_without_certificates_exclude_each_other(tmp_path: Path) -> None:
    for security in (["none"], ["none", "encrypt"]):
        with pytest.raises(ValueError, match="`none`, where clients show no certificate"):
            OpcUaOptions.model_validate({"kind": "opcua", "trusted": tmp_path, "security": security})
    assert OpcUaOptions(kind="opcua", trusted=tmp_path).security == ("sign", "encrypt")
    assert OpcUaOptions(kind="opcua").security == ("none", "sign", "encrypt")


@pytest.fixture
def admits(plant: Plant, tmp_path: Path) -> Iterator[OpcUaSink]:
    """A server with nothing but `trusted`: neither users nor `security` are stated."""
    options = OpcUaOptions(kind="opcua", port=0, store=tmp_path / "store", trusted=plant.folder / "trusted")
    sink = OpcUaSink(options, plant.line, "line", plant.line.alarm)
    sink.open()
    yield sink
    sink.close()


def secured(plant: Plant, folder: Path, name: str) -> str:
    certificate, key = plant.certificates[name]
    return f"Basic256Sha256,SignAndEncrypt,{certificate},{key},{folder / 'store' / 'certificate.der'}"


def test_where_certificates_are_trusted_a_client_without_one_gets_no_session(
    plant: Plant, admits: OpcUaSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(command(Peer(admits.url, security=secured(plant, tmp_path, "plc"))))
    refused(ua.uaerrors.BadCertificateUntrusted, Peer(admits.url, security=secured(plant, tmp_path, "stranger")))
    refused(ua.UaError, Peer(admits.url))  # no such endpoint is offered
    # One that goes on all the same.
    monkeypatch.setattr(Client, "find_endpoint", staticmethod(lambda endpoints, *_: endpoints[0]))
    refused(ua.uaerrors.BadSecurityModeInsufficient, Peer(admits.url))


def test_without_the_package_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("inspection.outputs.opcua.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncua", None)
    from inspection.outputs.opcua.sink import OpcUaSink as Fresh

    with ScriptedLine() as line:
        sink = Fresh(OpcUaOptions(kind="opcua", port=0, store=tmp_path), line, "line", line.alarm)
        with pytest.raises(MissingExtra, match="asyncua") as raised:
            sink.open()
        assert "lightsout-inspection[opcua]" in (raised.value.hint or "")


def test_refused_logins_do_not_flood_the_alarms(plant: Plant) -> None:
    before = len(plant.line.alarms)
    started = time.monotonic()
    for _ in range(5):
        peer = Peer(plant.guarded.url, user="line", password="guess", security=plant.security("plc"))
        refused(ua.uaerrors.BadUserAccessDenied, peer)
    told = len(plant.line.alarms) - before
    assert told <= 1 + (time.monotonic() - started) // 10
