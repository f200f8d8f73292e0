"""Errors a user can act on: one sentence, printed without a traceback, exit code 1."""


class SdgError(Exception):
    """A file, an image, a server or a recipe is wrong; the message says which, and what to do."""


def loading_errors() -> tuple[type[Exception], ...]:
    """What libraries raise for a checkpoint that is missing, damaged or of another kind than asked for."""
    from safetensors import SafetensorError  # late: only who loads checkpoints has it

    return OSError, ValueError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError
