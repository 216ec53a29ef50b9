"""Certificates for TLS on loopback."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from graftax.serve.http.tls import Certificate


def self_signed(folder: Path) -> Certificate:
    """One that vouches for itself; beside it lies locked.pem, its key behind the password "secret"."""
    key, moment = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "graftax")])
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), moment, moment + timedelta(days=1)
    )
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    (folder / "cert.pem").write_bytes(made.sign(key, SHA256()).public_bytes(Encoding.PEM))
    for file, encryption in (("key.pem", NoEncryption()), ("locked.pem", BestAvailableEncryption(b"secret"))):
        (folder / file).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return Certificate(folder / "cert.pem", folder / "key.pem")
