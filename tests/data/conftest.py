"""Records as plain values; `strategies` says what a Record may hold, for hypothesis."""

from dataclasses import asdict

import pytest
import strategies  # noqa: F401 (registers them)
from hypothesis import settings

# Examples write files: how long one takes depends on the disk.
settings.register_profile("files", deadline=None)
settings.load_profile("files")


@pytest.fixture(scope="session")
def everything():
    """Records as plain values: what `==` leaves out of a Defect and a Diagnosis counts here."""
    return lambda records: [asdict(record) for record in records]
