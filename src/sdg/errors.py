"""Errors a user can act on: one sentence, printed without a traceback, exit code 1."""


class SdgError(Exception):
    """Something outside the program is wrong (a file, an image, a server, a recipe); the message says what to do."""
