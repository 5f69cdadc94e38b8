"""Untrusted text and durations, as people read them."""

import re
import unicodedata

LONGEST_NAME = 100  # characters of a name in a file's name
HIDDEN = ("C", "Zl", "Zp")  # control, format (bidi, zero width), surrogate, private, unassigned; line separators


def visible(text: str) -> str:
    """The text with every character that cannot be seen, or that reorders others, written out as ⟨U+202E⟩.

    Line feeds and tabs stay: they are layout. A carriage return before a line feed goes.
    """
    if text.isprintable():  # most texts, at a hundredth of the time
        return text
    return "".join(map(_seen, text.replace("\r\n", "\n")))


def _seen(character: str) -> str:
    if character in "\n\t" or not unicodedata.category(character).startswith(HIDDEN):
        return character
    return f"⟨U+{ord(character):04X}⟩"


def cut(text: str, most: int) -> str:
    """At most so many characters, with an ellipsis where some are missing."""
    return text if len(text) <= most else text[: most - 1] + "…"


def first_sentence(text: str) -> str:
    """Up to the first full stop that a capital or a figure follows."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z0-9])", text, maxsplit=1)[0]


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def stem(text: str) -> str:
    """Fit for a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)[:LONGEST_NAME].strip("-.") or "unnamed"
