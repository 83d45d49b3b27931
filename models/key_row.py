"""What a verification reads of a key, and the statement that reads it."""

from typing import NamedTuple


class KeyRow(NamedTuple):
    """What is known of a key at this moment: the columns of READ_KEY, in its order."""

    id: str
    key_public: str
    digest: bytes
    name: str
    mode: str
    user_id: str
    username: str
    expires_at: str  # RFC 3339 in UTC, to the second
    refusal: str | None  # why it is not good
    use_noted: bool | None  # less than a minute ago, as the two below; None: never
    refusal_noted: bool | None
    mismatch_noted: bool | None


# A time as text is 2026-01-31 12:00:00.123456, on PostgreSQL with +00 at its end. What
# is noted up to a minute ahead counts: another host's clock may be faster.
READ_KEY = """
    SELECT k.id, k.key_public, k.digest, k.name, k.mode, k.user_id, u.username,
        replace(substr(CAST(k.expires_at AS text), 1, 19), ' ', 'T') || 'Z'
            AS expires_at,
        CASE
            WHEN k.revoked_at IS NOT NULL THEN 'revoked'
            WHEN u.suspended_at IS NOT NULL THEN 'user_suspended'
            WHEN k.expires_at <= %(now)s THEN 'expired'
        END AS refusal,
        k.last_used_at BETWEEN %(minute_ago)s AND %(in_a_minute)s AS use_noted,
        k.last_refused_at BETWEEN %(minute_ago)s AND %(in_a_minute)s AS refusal_noted,
        k.last_mismatch_at BETWEEN %(minute_ago)s AND %(in_a_minute)s AS mismatch_noted
    FROM api_keys k JOIN users u ON u.id = k.user_id
    WHERE k.key_public = %(public)s
"""
