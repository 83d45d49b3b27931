"""How a token is made, recognised and hashed. Pure functions: no database, no request.

``lk_<public>_<secret><checksum>``: 12 characters to look it up by, 43 (256 random bits) that are
the secret, 6 that are the CRC-32 of all before them, so that garbage is told from a token offline.
"""

import hashlib
import re
import secrets
import zlib
from typing import NamedTuple

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SHAPE = re.compile(r"([a-z]{1,11})_([0-9A-Za-z]{12})_[0-9A-Za-z]{43}([0-9A-Za-z]{6})")


class Token(NamedTuple):
    """``text`` is shown once and never stored; ``public`` and ``digest`` are."""

    text: str
    public: str
    digest: bytes


def mint(prefix: str) -> Token:
    """A new random token."""
    public, secret = ("".join(secrets.choice(BASE62) for _ in range(n)) for n in (12, 43))
    body = f"{prefix}_{public}_{secret}"
    return Token(text := body + checksum(body), public, digest(text))


def parse(text: str, prefix: str) -> Token | None:
    """The token in ``text``, or None where prefix, length, alphabet or checksum is wrong."""
    match = SHAPE.fullmatch(text)
    if match is None or match[1] != prefix or checksum(text[:-6]) != match[3]:
        return None
    return Token(text, match[2], digest(text))


def digest(text: str) -> bytes:
    """SHA-256, 32 bytes: a secret of 256 random bits needs no slow hash, nobody can guess it."""
    return hashlib.sha256(text.encode()).digest()


def checksum(body: str) -> str:
    """CRC-32 (ISO 3309) in base 62, most significant of its 6 digits first."""
    crc = zlib.crc32(body.encode())
    return "".join(BASE62[crc // 62**place % 62] for place in range(5, -1, -1))


def redact(text: str) -> str:
    """``text`` without the secret of any token in it."""
    return SHAPE.sub(r"\1_\2_...", text)
