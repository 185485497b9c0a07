"""The token that a Ray head asks for, or that a server of an agent does."""

from __future__ import annotations

import os
from pathlib import Path

from parsecrl.platform.errors import UserError


def read_token(token_file: str | Path | None = None) -> str | None:
    """The token to show to the head. It goes nowhere else.

    Args:
        token_file: That holds it; None: where Ray itself would look.

    Returns:
        The token; None where there is none to show.

    Raises:
        UserError: The file cannot be read, or holds no token.
    """
    if token_file is None:
        mode = os.environ.get("RAY_AUTH_MODE", "").lower()
        if mode == "disabled":
            return None
        if given := os.environ.get("RAY_AUTH_TOKEN"):
            return given.strip()
        default = Path.home() / ".ray" / "auth_token" if mode == "token" else None
        token_file = os.environ.get("RAY_AUTH_TOKEN_PATH") or default
        if token_file is None:
            return None
    try:
        token = Path(token_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"the token file {token_file} cannot be read ({reason}); give another --token-file") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"the token file {token_file} must hold one token in one line; give another --token-file")
    return token
