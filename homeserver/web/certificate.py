"""The TLS certificate of the listeners, renewable while connections stay open."""

from OpenSSL.SSL import Context, Error
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.logger import Logger
from zope.interface import implementer

log = Logger()


@implementer(IOpenSSLContextFactory)
class Certificate:
    """Gives each new TLS connection the newest certificate that could be read.

    In the shape that Twisted asks for once per connection (`getContext`).
    """

    def __init__(self, certificate_path: str, private_key_path: str) -> None:
        """PEM files: the certificate followed by its chain, and the private key. Raises ValueError when
        unusable.
        """
        self._certificate_path = certificate_path
        self._private_key_path = private_key_path
        self._context = self._load()

    def getContext(self) -> Context:
        """The context for the next connection."""
        return self._context

    def reload(self) -> bool:
        """Read the files again; False, and the old certificate stays, when they do not fit together."""
        try:
            self._context = self._load()
        except ValueError as error:
            log.error("{error}; the old certificate stays in use", error=error)
            return False
        return True

    def _load(self) -> Context:
        options = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2, acceptableProtocols=[b"http/1.1"])
        context = options.getContext()
        try:
            context.use_certificate_chain_file(self._certificate_path)
            context.use_privatekey_file(self._private_key_path)
            context.check_privatekey()
        except (Error, OSError):
            paths = f"{self._certificate_path} and {self._private_key_path}"
            raise ValueError(f"no usable TLS certificate and key in {paths}") from None
        return context
