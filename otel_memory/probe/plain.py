"""Values that every exporter can send.

Owns what is done to texts and numbers of the application before they become names and attributes. OTLP takes UTF-8 and
integers of 64 bits; one value that is neither, such as the undecodable name of a file, would cost the whole batch.
"""

from __future__ import annotations

from typing import Any, Final

MAX_TEXT: Final = 512
"""Characters of a text at most."""
MAX_INTEGER: Final = 2**63 - 1


def plain_text(value: object) -> str:
    """``value`` as a text of at most 512 characters that UTF-8 can hold: a lone surrogate becomes ``\\udcff``.

    Never raises: where ``str`` does, the type's name stands for it.
    """
    try:
        text = value if type(value) is str else str(value)
    except Exception:  # __str__ of somebody's class
        text = f"<{type(value).__name__}>"
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain_value(value: Any) -> Any:
    """An attribute's value: texts as above, also within a list; an integer of more than 64 bits as a text."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, list | tuple):
        return [plain_value(element) for element in value]
    if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        return plain_text(value)
    return value
