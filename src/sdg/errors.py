"""Errors a user can act on: one sentence, printed without a traceback, exit code 1."""


class SdgError(Exception):
    """A file, an image, a server or a recipe is wrong; the message says which, and what to do."""
