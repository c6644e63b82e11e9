"""Certificates that a test's own authority signs."""

import subprocess
from pathlib import Path

from tools.servers.installing import require

_CURVE = ("-pkeyopt", "ec_paramgen_curve:prime256v1")  # what certbot makes too; RSA costs a server twenty times as much


class Authority:
    """One who signs certificates."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.certificate, self._key, self._folder = folder / "ca.pem", folder / "ca.key", folder
        self._openssl(
            *("req", "-x509", "-newkey", "ec", *_CURVE, "-nodes", "-days", "2", "-subj", "/CN=Test authority"),
            *("-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def sign(self, name: str, address: str) -> Path:
        """A PEM file with a key and a certificate for an IP address."""
        key, request, signed = (self._folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        self._openssl(
            *("req", "-newkey", "ec", *_CURVE, "-nodes", "-subj", f"/CN={address}"),
            *("-keyout", str(key), "-out", str(request)),
        )
        extension = self._folder / f"{name}.ext"
        extension.write_text(f"subjectAltName=IP:{address}\n")
        self._openssl(
            *("x509", "-req", "-days", "2", "-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial"),
            *("-in", str(request), "-extfile", str(extension), "-out", str(signed)),
        )
        both = self._folder / f"{name}.pem"
        both.write_text(key.read_text() + signed.read_text())
        return both

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run([require("openssl", "openssl"), *arguments], check=True, capture_output=True)
