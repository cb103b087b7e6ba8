"""What of an account only its owner's clients read, in whatever table: of no use once nobody can log in any more."""

from psycopg2.extensions import cursor as Cursor

_STATEMENTS = (
    "DELETE FROM filters WHERE user_id = %(user)s",
    "DELETE FROM openid_tokens WHERE user_id = %(user)s",
    "DELETE FROM key_backup_versions WHERE user_id = %(user)s",
    "DELETE FROM cross_signing_keys WHERE user_id = %(user)s",
    "DELETE FROM signatures WHERE target_user_id = %(user)s OR signer_user_id = %(user)s",
)


def delete_private_data(cur: Cursor, user_id: str) -> None:
    """Delete a user's filters, OpenID tokens, key backups, cross-signing keys and signatures. Devices take theirs along."""
    for statement in _STATEMENTS:
        cur.execute(statement, {"user": user_id})
