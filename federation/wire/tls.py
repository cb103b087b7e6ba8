"""TLS towards other servers: whom to trust, which name to expect, when not to look."""

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

from federation.rules.server_acl import ServerGlobs

_DISTRUSTED = " (it has expired, or its authority is not known here)"
_PEM_BEGIN = b"-----BEGIN"
_PEM_END = b"-----END CERTIFICATE-----"


class TlsPolicy:
    """Makes the client side of TLS for a name."""

    def __init__(
        self, verify: bool = True, unverified_names: Iterable[str] = (), custom_ca_files: Iterable[str] = ()
    ) -> None:
        """``unverified_names`` are globs of names whose certificates are not looked at; ``custom_ca_files`` (PEM)
        replace the system's authorities. Raises ValueError for a file without certificates, OSError.
        """
        self._verify = verify
        self._unverified = ServerGlobs(unverified_names)
        authorities = [certificate for path in custom_ca_files for certificate in _certificates(path)]
        self._trust = trustRootFromCertificates(authorities) if authorities else platformTrust()
        # One context for all connections whose other side is not looked at: there is nothing about a name in it.
        self._blind = CertificateOptions(verify=False, raiseMinimumTo=TLSVersion.TLSv1_2)

    def verifies(self, name: str) -> bool:
        """Whether a name's certificate is checked."""
        return self._verify and not self._unverified.match(name)

    def creator(self, name: str) -> IOpenSSLClientConnectionCreator:
        """For a connection to a DNS name or IP address, which the certificate has to carry."""
        if self.verifies(name):
            # Sends SNI for DNS names and none for addresses, and checks either kind.
            return optionsForClientTLS(
                name,
                trustRoot=self._trust,
                extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2},
            )
        return _Unverified(name, self._blind)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Encrypts without knowing to whom."""

    def __init__(self, name: str, options: CertificateOptions) -> None:
        self._name = name
        self._options = options

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Asked by Twisted once for each connection."""
        connection = SSL.Connection(self._options.getContext(), None)
        try:
            ip_address(self._name)
        except ValueError:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection


def trouble(problem: object) -> str | None:
    """What a failure of TLS means, in words for operators; None for another failure."""
    if isinstance(problem, VerificationError):
        return "TLS: the certificate is made out to another name"
    if isinstance(problem, SSL.Error):
        reasons = problem.args[0] if problem.args else ()
        said = ", ".join(reason for _, _, reason in reasons) or "the connection closed"
        return f"TLS: {said}" + (_DISTRUSTED if "certificate verify failed" in said else "")
    return None


def _certificates(path: str) -> list[Certificate]:
    blocks = Path(path).read_bytes().split(_PEM_END)[:-1]
    if not blocks:
        raise ValueError(f"{path} contains no certificate")
    return [Certificate.loadPEM(block[block.index(_PEM_BEGIN) :] + _PEM_END) for block in blocks]
