"""What a library raises for a checkpoint, and what of it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from sdg.errors import first_line, loading_errors


def test_damaged_weights_are_among_the_errors_of_loading(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(loading_errors()):
        load_file(tmp_path / "a.safetensors")
    assert not issubclass(KeyboardInterrupt, loading_errors())


@pytest.mark.parametrize(("text", "said"), [("\n one\ntwo", "one"), ("", "OSError"), (" \n", "OSError")])
def test_the_first_line_of_an_error_or_its_name(text: str, said: str) -> None:
    assert first_line(OSError(text)) == said
