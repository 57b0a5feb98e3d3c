"""Who may connect and who may call: server certificate, users, trusted certificates, and what asyncua leaves open.

Read in the source of asyncua 2.1.0 and closed here, each held by a test: session tokens are small counting numbers, so
that another connection could take over a session that a user has activated; a session serves requests before it is
activated, where the channel has no security; a channel without security opens even where no such endpoint is offered;
a client's certificate is checked as the session request states it, not as the channel was opened with it; passwords
may come under RSA 1.5, and their nonce is not looked at; a client without any session may register servers.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto import uacrypto
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession, SessionState
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from inspection.control import Alarm
from inspection.errors import ConfigInvalid
from inspection.files import unwritable, write_bytes
from inspection.outputs.options import OpcUaOptions

YEARS = 10  # a certificate of its own makes; a plant changes it when it likes, by `certificate` and `key`
WARN_EVERY = 10.0
REJECTED_KEPT = 20  # unknown certificates that are kept for a person to move to `trusted`
SERVICES = frozenset(
    {
        *("read", "write", "browse", "browse_next", "call", "translate_browsepaths_to_nodeids", "register_nodes"),
        *("unregister_nodes", "history_read", "history_update", "add_nodes", "delete_nodes", "add_references"),
        *("delete_references", "create_subscription", "modify_subscription", "transfer_subscriptions", "publish"),
        *("delete_subscriptions", "create_monitored_items", "modify_monitored_items", "delete_monitored_items"),
        *("set_monitoring_mode", "set_publishing_mode", "republish"),
    }
)
PASSWORD_ALGORITHMS: dict[str | None, Callable[[Any, bytes], bytes]] = {
    "http://www.w3.org/2001/04/xmlenc#rsa-oaep": uacrypto.decrypt_rsa_oaep,
    "http://opcfoundation.org/UA/security/rsa-oaep-sha2-256": uacrypto.decrypt_rsa_oaep_sha256,
}
SIGNATURE_ALGORITHMS = {
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
    "http://opcfoundation.org/UA/security/rsa-pss-sha2-256",
}


@dataclass
class Caller(User):  # type: ignore[misc]
    """Who a session belongs to. `may_call`: whether it may call methods; reading and events are open to all callers."""

    may_call: bool = False


class UserCertificate(bytes):
    """A certificate that a user has proved to own, told apart from the one that the channel was opened with."""


def read_users(options: OpcUaOptions) -> dict[str, bytes]:
    """Name -> SHA-256 of the password, from the environment variable `users_env`. Raises ConfigInvalid."""
    if options.users_env is None:
        return {}
    users = {}
    for pair in os.environ.get(options.users_env, "").split(","):
        name, colon, password = pair.strip().partition(":")
        if not (name and colon and password):
            raise ConfigInvalid(
                "the environment variable holds no `name:password` pairs, separated by commas.",
                where=f"outputs.opcua.users_env ({options.users_env})",
                hint="Set it before the line starts, or take `users_env` out of the recipe.",
            )
        users[name] = hashlib.sha256(password.encode()).digest()
    return users


class Gate(InternalServer):  # type: ignore[misc]
    """asyncua's inner server with this module's rules."""

    def __init__(self, options: OpcUaOptions, alarm: Alarm) -> None:
        self.options = options
        self.alarm = alarm
        self.users = read_users(options)
        self.anonymous = options.anonymous if options.anonymous is not None else not self.users
        tokens = [ua.AnonymousIdentityToken] if self.anonymous else []
        tokens += [ua.UserNameIdentityToken] if self.users else []
        tokens += [ua.X509IdentityToken] if options.trusted else []
        if not tokens:
            raise ConfigInvalid(
                "nobody may connect: `anonymous` is false, and there are neither users nor trusted certificates.",
                where="outputs.opcua",
                hint="Give `users_env` or `trusted`.",
            )
        super().__init__(user_manager=self)
        self.supported_tokens = tuple(tokens)
        self.allow_remote_admin = False
        self.bind_condition_methods = True
        self.max_connections = 100
        self._warned: dict[str, float] = {}

    def create_session(self, name: str, _user: User | None = None, external: bool = False) -> InternalSession:
        """A session for a client."""
        return GuardedSession(self, self.aspace, self.subscription_service, name, external=external)

    def warn(self, code: str, text: str) -> None:
        """The alarm, at most once in `WARN_EVERY` seconds for each code: a client that tries on must not flood it."""
        now = time.monotonic()
        if now - self._warned.get(code, -WARN_EVERY) >= WARN_EVERY:
            self._warned[code] = now
            self.alarm(code, text)

    def get_user(
        self,
        _iserver: InternalServer,
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> Caller | None:
        """asyncua's user manager: who this is; None: nobody that may come in."""
        if username is not None:
            given = hashlib.sha256((password or "").encode()).digest()
            kept = self.users.get(username, b"\0" * 32)  # as long a comparison for a name that nobody has
            if hmac.compare_digest(given, kept) and username in self.users:
                return Caller(role=UserRole.User, name=username, may_call=True)
            self.warn("opcua-login-refused", f"OPC UA: a client gave a wrong name or password (as {username[:40]!r}).")
            return None
        if isinstance(certificate, UserCertificate):
            if not self.trusts(certificate):
                self.warn("opcua-login-refused", "OPC UA: a user's certificate is not in the folder `trusted`.")
                return None
            subject = x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
            return Caller(role=UserRole.User, name=subject, may_call=True)
        return Caller(role=UserRole.User, name=None, may_call=not self.users) if self.anonymous else None

    def decrypt_user_token(self, isession: Any, token: ua.UserNameIdentityToken) -> tuple[str, str]:
        """Name and password. Raises ServiceError."""
        if not token.EncryptionAlgorithm:  # the channel encrypts, or no endpoint of this server does
            return token.UserName or "", (token.Password or b"").decode()
        if token.EncryptionAlgorithm not in PASSWORD_ALGORITHMS:
            raise ServiceError(ua.StatusCodes.BadSecurityPolicyRejected)
        try:
            plain = PASSWORD_ALGORITHMS[token.EncryptionAlgorithm](self.private_key, token.Password)
            length = unpack_from("<I", plain)[0]
        except Exception as error:  # whatever went wrong inside, the client learns no more than that
            raise ServiceError(ua.StatusCodes.BadIdentityTokenInvalid) from error
        secret, nonce = (
            plain[4 : 4 + length - len(isession.nonce)],
            plain[4 + length - len(isession.nonce) : 4 + length],
        )
        if not hmac.compare_digest(nonce, isession.nonce):
            raise ServiceError(ua.StatusCodes.BadIdentityTokenInvalid)
        return token.UserName or "", secret.decode()

    def verify_x509_token(self, isession: Any, token: ua.X509IdentityToken, signature: ua.SignatureData) -> bytes:
        """The certificate whose owner has signed this session's challenge. Raises ServiceError and crypto's errors."""
        if signature.Algorithm not in SIGNATURE_ALGORITHMS:
            raise ServiceError(ua.StatusCodes.BadSecurityPolicyRejected)
        return UserCertificate(super().verify_x509_token(isession, token, signature))

    def trusts(self, certificate: bytes) -> bool:
        """Whether this very certificate lies in `trusted` and is of these days. The folder is read each time."""
        assert self.options.trusted is not None
        known = x509.load_der_x509_certificate(certificate)
        now = datetime.datetime.now(datetime.UTC)
        if not known.not_valid_before_utc <= now <= known.not_valid_after_utc:
            return False
        return any(certificate == other for other in read_certificates(self.options.trusted))

    def keep_rejected(self, certificate: bytes) -> None:
        """Puts an unknown client's certificate into `store/rejected`, for a person to move it, and raises the alarm."""
        folder = self.options.store / "rejected"
        name = hashlib.sha256(certificate).hexdigest()[:40]
        path = folder / f"{name}.der"
        if not path.exists() and (not folder.is_dir() or len(list(folder.iterdir())) < REJECTED_KEPT):
            write_bytes(path, certificate)
        self.warn("opcua-client-refused", f"OPC UA: a client's certificate is not trusted ({path}).")

    def register_server(self, _server: Any, _conf: Any = None) -> None:
        """This is no discovery server."""
        raise ServiceError(ua.StatusCodes.BadServiceUnsupported)

    def register_server2(self, _params: Any) -> None:
        """This is no discovery server."""
        raise ServiceError(ua.StatusCodes.BadServiceUnsupported)


class GuardedSession(InternalSession):  # type: ignore[misc]
    """A client's session: nothing before it is activated, and methods only for those that may call."""

    def __init__(self, *args: Any, external: bool, **rest: Any) -> None:
        super().__init__(*args, **rest, external=False)
        self.external = external
        self.auth_token = ua.NodeId(secrets.token_bytes(32), 0, ua.NodeIdType.ByteString)
        if external:
            self.iserver.register_external_session(self)

    def __getattribute__(self, name: str) -> Any:
        if name in SERVICES and self.state is not SessionState.Activated:
            raise ServiceError(ua.StatusCodes.BadSessionNotActivated)
        return super().__getattribute__(name)

    def activate_session(self, params: ua.ActivateSessionParameters, peer_certificate: bytes | None) -> Any:
        """`peer_certificate`: what the channel was opened with; None or empty: no security. Raises ServiceError."""
        gate: Gate = self.iserver
        if not peer_certificate and "none" not in gate.options.security:
            raise ServiceError(ua.StatusCodes.BadSecurityModeInsufficient)
        if gate.options.trusted is not None:
            if not peer_certificate:
                gate.warn("opcua-client-refused", "OPC UA: a client without a certificate was refused.")
                raise ServiceError(ua.StatusCodes.BadSecurityModeInsufficient)
            if not gate.trusts(peer_certificate):
                gate.keep_rejected(peer_certificate)
                raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)
        return super().activate_session(params, peer_certificate)

    async def close_session(self, delete_subs: bool = True) -> None:
        """Ends it; its subscriptions go first, while it may still delete them."""
        if delete_subs:
            subscriptions = self.subscription_service.subscriptions
            mine = [number for number, one in subscriptions.items() if one.session_id == self.session_id]
            await self.subscription_service.delete_subscriptions(mine)
        await super().close_session(False)

    async def call(self, params: list[ua.CallMethodRequest]) -> list[ua.CallMethodResult]:
        """Calls methods. Raises ServiceError."""
        if not (isinstance(self.user, Caller) and self.user.may_call):
            raise ServiceError(ua.StatusCodes.BadUserAccessDenied)
        return list(await super().call(params))


def read_certificates(folder: Path) -> list[bytes]:
    """Every certificate of the folder as DER; other files are left alone. Raises ConfigInvalid."""
    found = []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigInvalid(f"the folder cannot be read: {error}.", where=str(folder)) from error
    for path in paths:
        if path.suffix.lower() not in (".der", ".pem", ".crt", ".cer"):
            continue
        try:
            data = path.read_bytes()
            pem = data.lstrip().startswith(b"-----")
            loaded = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        except (OSError, ValueError) as error:
            raise ConfigInvalid(
                f"this is no certificate: {error}.", where=str(path), hint="Take it out of the folder."
            ) from error
        found.append(loaded.public_bytes(serialization.Encoding.DER))
    return found


def own_certificate(options: OpcUaOptions, uri: str) -> tuple[Path, Path]:
    """The server's certificate and key: those of the options, or its own, made at the first start and kept in `store`.

    Raises:
        ConfigInvalid: one of the two is missing, or cannot be read. OutputUnwritable.
    """
    if (options.certificate is None) != (options.key is None):
        raise ConfigInvalid(
            "`certificate` and `key` belong together.", where="outputs.opcua", hint="Give both or none."
        )
    if options.certificate is not None and options.key is not None:
        return options.certificate, options.key
    certificate, key = options.store / "certificate.der", options.store / "key.pem"
    if not (certificate.exists() and key.exists()):
        _make(certificate, key, options.host, uri)
    return certificate, key


def application_uri(certificate: Path) -> str:
    """The URI in a certificate, which must be the server's own: clients compare the two. Raises ConfigInvalid."""
    try:
        data = certificate.read_bytes()
        pem = data.lstrip().startswith(b"-----")
        known = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        names = known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)[0]
    except (OSError, ValueError, x509.ExtensionNotFound, IndexError) as error:
        raise ConfigInvalid(
            f"this is no certificate of an OPC UA application: {error}.",
            where=str(certificate),
            hint="It needs a subject alternative name with the application's URI.",
        ) from error


def _make(certificate: Path, key: Path, host: str, uri: str) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    machine = socket.gethostname()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"lightsout-inspection@{machine}"[:64])])
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), x509.DNSName(machine)]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # a PLC's clock may be behind
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        key.parent.mkdir(parents=True, exist_ok=True)
        key.unlink(missing_ok=True)
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
    except OSError as error:
        raise unwritable(key, error) from error
    write_bytes(certificate, made.public_bytes(serialization.Encoding.DER))
