"""TLS for the endpoint: the web config's rules become one `ssl.SSLContext`, and a client's certificate is looked at.

Owns how Go's names and policies, in which the file is written, are put to OpenSSL. It reads the files of certificates
and opens no socket. What Python's TLS cannot do is refused or done more strictly, never more loosely: a certificate
is always verified when it is asked for, and of several curves only the first is taken where a list cannot be given.
"""

import ipaddress
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from batsignal import small_file
from batsignal.errors import ConfigError
from batsignal.web_config import CIPHERS, CURVES, TlsServerConfig, WebRules

Where = Callable[[str], str]
"""What to call a key of `tls_server_config` in an error."""

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_PROTOCOLS = ["http/1.1"]  # what we speak; a client that also offers h2 takes this


def context(rules: WebRules) -> ssl.SSLContext | None:
    """Return the context for new connections, None where plain HTTP is wanted. Raises ConfigError."""
    tls = rules.tls
    if tls is None:
        return None
    where = partial(rules.place, "tls_server_config")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.set_alpn_protocols(_PROTOCOLS)
    _set_versions(made, tls, where)
    _load_certificate(made, tls, where)
    _ask_clients(made, tls, where)
    return made


def _set_versions(made: ssl.SSLContext, tls: TlsServerConfig, where: Where) -> None:
    suites = [CIPHERS[name] for name in tls.cipher_suites or () if name in CIPHERS]
    least = tls.min_version
    if tls.cipher_suites and not suites:
        least = "TLS13"  # only suites of TLS 1.3 were listed: nothing is left for those before it
        if tls.max_version != "TLS13":
            raise ConfigError(f"{where('cipher_suites')}: expected some for {tls.max_version}, got only those of TLS13")
    made.minimum_version, made.maximum_version = _VERSIONS[least], _VERSIONS[tls.max_version]
    if suites:
        made.set_ciphers(":".join(suites))
    if tls.prefer_server_cipher_suites:
        made.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        made.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    curves = [CURVES[name] for name in tls.curve_preferences or ()]
    if curves and hasattr(made, "set_groups"):  # Python 3.15
        made.set_groups(":".join(curves))
    elif curves:
        made.set_ecdh_curve(curves[0])


def _load_certificate(made: ssl.SSLContext, tls: TlsServerConfig, where: Where) -> None:
    certificate = _pem(tls.cert, tls.cert_file, where("cert" if tls.cert else "cert_file"), "CERTIFICATE")
    secret = None if tls.key is None else tls.key.get_secret_value()
    key_name = where("key" if secret else "key_file")
    key = _pem(secret, tls.key_file, key_name, "PRIVATE KEY")
    # From the very bytes that were looked at: the files may be replaced between two readings.
    with _in_memory(certificate) as certificate_path, _in_memory(key) as key_path:
        try:
            # An empty passphrase: without one OpenSSL would stop and ask at the terminal.
            made.load_cert_chain(certificate_path, key_path, password="")
        except ssl.SSLError as exc:
            if exc.reason == "KEY_VALUES_MISMATCH":
                raise ConfigError(f"{key_name}: expected the key of the certificate, got another one") from exc
            reason = (exc.reason or "not readable").replace("_", " ").lower()
            raise ConfigError(
                f"{key_name}: expected a certificate and its key, without a passphrase, in PEM: {reason}"
            ) from exc


def _ask_clients(made: ssl.SSLContext, tls: TlsServerConfig, where: Where) -> None:
    kind = tls.client_auth_type or "NoClientCert"
    if kind in {"NoClientCert", "RequestClientCert"}:
        return  # what RequestClientCert asks for nobody would look at, and everybody may enter without
    name = where("client_ca" if tls.client_ca else "client_ca_file")
    authorities = _pem(tls.client_ca, tls.client_ca_file, name, "CERTIFICATE")
    try:
        made.load_verify_locations(cadata=authorities.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(f"{name}: expected certificates in PEM: they cannot be read") from exc
    made.verify_mode = ssl.CERT_OPTIONAL if kind == "VerifyClientCertIfGiven" else ssl.CERT_REQUIRED


def _pem(text: str | None, path: str | None, where: str, kind: str) -> bytes:
    """Return what was written inline, else the file's content; raises ConfigError where it is not of the kind."""
    try:
        content = text.encode() if text else small_file.read(Path(path or ""))
    # ValueError: a path with a zero byte in it.
    except (OSError, ValueError) as exc:
        reason = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        raise ConfigError(f"{where}: expected a readable file, got {path!r}: {reason}") from exc
    if f"{kind}-----".encode() not in content:
        got = "another text" if text else f"another file, {path!r}"
        raise ConfigError(f"{where}: expected a {kind.lower()} in PEM, got {got}")
    return content


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Give a path to read the content from: OpenSSL takes files only, and a key belongs on no disk but its own."""
    descriptor = os.memfd_create("batsignal-pem")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def names_of(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the subject's alternative names of a verified certificate, as `ssl` gives it: names, addresses, URIs.

    >>> sorted(names_of({"subjectAltName": (("DNS", "prom"), ("IP Address", "0:0:0:0:0:0:0:1"))}))
    ['::1', 'prom']
    """
    return frozenset(
        _address(value) if kind == "IP Address" else value
        for kind, value in (certificate or {}).get("subjectAltName", ())
        if kind in {"DNS", "IP Address", "email", "URI"}
    )


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return text
