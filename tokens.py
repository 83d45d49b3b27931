"""How a token is made, recognised and hashed. Pure functions: no database, no request.

A token reads ``lk_<public>_<secret><checksum>``: 12 characters to look it up by, 43
secret ones (256 random bits), and 6 for the CRC-32 of all before them, so that a typing
error is found without the database.
"""

import hashlib
import re
import secrets
import zlib
from typing import NamedTuple

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # base 62
PATTERN = re.compile(
    r"(?P<prefix>[a-z]{1,11})"  # at most 10 letters, and the s of a session
    r"_(?P<public>[0-9A-Za-z]{12})"
    r"_[0-9A-Za-z]{43}(?P<checksum>[0-9A-Za-z]{6})"
)


class Token(NamedTuple):
    """``text`` is shown once and never stored; ``public`` and ``digest`` are."""

    text: str
    public: str
    digest: bytes


def new_token(prefix: str) -> Token:
    """A new random token."""
    public = "".join(secrets.choice(DIGITS) for _ in range(12))
    secret = "".join(secrets.choice(DIGITS) for _ in range(43))
    body = f"{prefix}_{public}_{secret}"
    text = body + checksum(body)
    return Token(text, public, digest(text))


def parse(text: str, prefix: str) -> Token | None:
    """The token in ``text``; None if prefix, length, alphabet or checksum is wrong."""
    match = PATTERN.fullmatch(text)
    if match is None or match["prefix"] != prefix:
        return None
    if checksum(text[:-6]) != match["checksum"]:
        return None
    return Token(text, match["public"], digest(text))


def digest(text: str) -> bytes:
    """SHA-256, 32 bytes. Nobody guesses 256 random bits: a slow hash adds nothing."""
    return hashlib.sha256(text.encode()).digest()


def checksum(body: str) -> str:
    """CRC-32 (ISO 3309) as 6 digits in base 62, most significant first."""
    rest = zlib.crc32(body.encode())
    text = ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        text = DIGITS[digit] + text
    return text


def redact(text: str) -> str:
    """``text`` without the secret of any token in it, even if its end is missing."""
    # 49: the secret and the checksum.
    return re.sub("([a-z]{1,11}_[0-9A-Za-z]{12})_[0-9A-Za-z]{1,49}", r"\1_...", text)
