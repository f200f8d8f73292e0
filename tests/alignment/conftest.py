"""Makes `toy` importable here, and in processes that tests start, and builds its checkpoints once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
sys.path.append(str(Path(HERE).parent / "detectors"))  # of `bad_server`
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy-size checkpoints: flux (as FLUX.1-dev), sd3 (as SD3.5-medium) and clip."""
    import toy

    folder = tmp_path_factory.mktemp("checkpoints")
    toy.flux_pipeline().save_pretrained(folder / "flux")
    toy.sd3_pipeline().save_pretrained(folder / "sd3")
    toy.save_clip(folder / "clip")
    (folder / "train.txt").write_text("\n".join(toy.PROMPTS[:8]))
    (folder / "held-out.txt").write_text("\n".join(toy.PROMPTS[8:]))
    return folder
