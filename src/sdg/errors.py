"""Errors a user can act on: one sentence, printed without a traceback, exit code 1."""


class SdgError(Exception):
    """A file, an image, a server or a recipe is wrong; the message says which, and what to do."""


def loading_errors() -> tuple[type[Exception], ...]:
    """What libraries raise for a checkpoint that is missing, damaged or of another kind than asked for."""
    from safetensors import SafetensorError  # late: only who loads checkpoints has it

    plain = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError)
    return (*plain, SafetensorError)


def first_line(error: Exception) -> str:
    """What a library's error says, in one line; its name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
