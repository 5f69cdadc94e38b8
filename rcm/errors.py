"""What a user did that cannot work, told in one sentence."""


class InputError(ValueError):
    """One sentence that names the value, the place and the cure; `launch.py` shows it without a traceback."""


def first_sentence(error: Exception) -> str:
    """The first sentence of a library's message, which may run to a page."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")
