"""Starting stays light: no deep-learning framework, and no array library, before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "{'torch', 'transformers', 'diffusers', 'datasets', 'matplotlib', 'scipy', 'numpy'}"


@pytest.mark.parametrize(
    "code",
    [
        "import sdg",
        "import sdg; sdg.Defect((0, 0, 1, 1), 'artifact')",
        "from sdg.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_the_package_and_its_help_load_nothing_heavy(code):
    check = f"{code}\nimport sys; found = {HEAVY} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_evaluating_needs_no_framework():
    code = (
        "import sdg, sys; d = [[sdg.Defect((0, 0, 9, 9), 'artifact')]]; sdg.evaluate(d, d, bootstrap=10)\n"
        "assert not {'torch', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    import sdg

    for name in sdg.__all__:
        assert getattr(sdg, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = sdg.nothing
