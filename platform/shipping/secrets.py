"""What a secret looks like: the one rule for what a run shows to others, in its folder and on the dashboard."""

from __future__ import annotations

import re

NAME = re.compile(r"SECRET|TOKEN(?!I[SZ])|PASSW|CREDENTIAL|ACCESS_KEY|API_?KEY|_KEY$|^RAY_AUTH|^PARSEC_KEY")
ADDRESS = re.compile(r"://(?!git@)[^/\s]*@")  # with a user, and perhaps a password
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s")
KNOWN = re.compile(r"\b(AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{32,})\b")
ASSIGNED = re.compile(r"""([A-Za-z_][\w-]*)["']?[ \t]*[:=][ \t]*(["']?)([\w+/=.~!#%^*-]{12,})\2""")


def names_secret(name: str) -> bool:
    """Whether a variable holds a secret.

    Args:
        name: Of the variable.

    Returns:
        True where the name says so.
    """
    return bool(NAME.search(name.upper()))


def holds_password(text: str) -> bool:
    """Whether a value has an address with a user or a password in it.

    Args:
        text: The value.

    Returns:
        True where it has.
    """
    return bool(ADDRESS.search(text))


def line_of_secret(text: str, is_python: bool) -> int | None:
    """The first line of a file that looks as if it held a secret.

    Args:
        text: Of the file.
        is_python: In Python a value counts where it is a literal.

    Returns:
        Number of the line, from 1; None where none does.
    """
    found = [match.start() for kind in (PRIVATE_KEY, KNOWN) if (match := kind.search(text))]
    found += [match.start() for match in ADDRESS.finditer(text) if not set(match[0]) & set("{}<>$%*[](\\\"'`")]
    for match in ASSIGNED.finditer(text):
        name, quote, value = match.groups()
        drawn = sum(map(str.isdigit, value)) >= 3 and sum(map(str.isalpha, value)) >= 3 and value[0] not in "/.~"
        if drawn and names_secret(name) and (quote or not is_python):
            found.append(match.start())
            break
    return text.count("\n", 0, min(found)) + 1 if found else None
