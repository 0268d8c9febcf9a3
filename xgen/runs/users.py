"""Names of users."""

from __future__ import annotations

import pwd


def user_name(uid: int) -> str:
    """Its number, for one whom this machine does not know."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
