"""The generator's AutoencoderKL, trained from scratch on crops of scenes (`sdg testbed train-vae`).

Four blocks, factor 8, as FLUX's own: a 128-pixel picture is a 16×16 latent, packed into 8×8 tokens.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from sdg.errors import SdgError, loading
from sdg.io.files import replace_folder
from sdg.models.device import cpu_autocast
from sdg.testbed.models.loop import Hyperparameters, Run, SeededBatches, fit
from sdg.testbed.world.layout import sample_scene
from sdg.testbed.world.renderer import draw_thing, render, render_float
from sdg.testbed.world.scene import CANVAS, COLOURS, SHAPES, Thing

LATENT_CHANNELS: Final = 8
KL_WEIGHT: Final = 2e-4
CROP: Final = 64


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder of the generator's size (1.7M parameters)."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def load_vae(folder: Path) -> AutoencoderKL:
    """A trained autoencoder; raises SdgError where the folder holds none."""
    if not (folder / "config.json").is_file():
        raise SdgError(f"{folder} holds no autoencoder; train one with `sdg testbed train-vae`.")
    with loading(f"{folder} cannot be loaded as an AutoencoderKL"):
        return AutoencoderKL.from_pretrained(folder, use_safetensors=True)


def to_tensor(pictures: NDArray[np.uint8] | Tensor) -> Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W) float32 in −1..1."""
    return torch.as_tensor(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def sample_crops(rng: np.random.Generator, count: int = 32, crop: int = CROP) -> NDArray[np.uint8]:
    """Pictures to reconstruct: (count, crop, crop, 3), most of them around an object.

    A fifth are messed up (objects on top of each other, cut and turned, patches of noise), so that the
    autoencoder can also hold pictures that went wrong.
    """
    crops = np.empty((count, crop, crop, 3), np.uint8)
    for index in range(count):
        scene = sample_scene(rng)[2]
        picture = render_float(scene)
        if rng.random() < 0.2:
            _mess_up(picture, rng)
        thing = scene.things[int(rng.integers(len(scene.things)))]
        middle = (thing.y, thing.x) if rng.random() < 0.85 else rng.uniform(0, CANVAS, 2)
        jitter = rng.uniform(-crop / 3, crop / 3, 2)
        y, x = np.clip(np.add(middle, jitter) - crop / 2, 0, CANVAS - crop).astype(int)
        crops[index] = np.clip(picture[y : y + crop, x : x + crop] + 0.5, 0, 255)
    return crops


def _mess_up(picture: NDArray[np.float32], rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        shape, colour = SHAPES[int(rng.integers(6))], list(COLOURS)[int(rng.integers(8))]
        x, y, radius = rng.uniform(0, 128), rng.uniform(0, 128), rng.uniform(6, 30)
        draw_thing(
            picture, Thing(shape, colour, float(x), float(y), float(radius), float(rng.uniform(-60, 60)))
        )
    if rng.random() < 0.5:
        y, x = rng.integers(0, 96, 2)
        size = int(rng.integers(8, 32))
        picture[y : y + size, x : x + size] += rng.normal(0, 40, picture[y : y + size, x : x + size].shape)
        np.clip(picture, 0, 255, out=picture)


def vae_loss(vae: AutoencoderKL, pictures: Tensor) -> dict[str, Tensor]:
    """Reconstruction of pixels, edges and patch means, plus a light KL to the unit normal."""
    with cpu_autocast():
        posterior = vae.encode(pictures).latent_dist
        decoded = vae.decode(posterior.sample()).sample
    decoded = decoded.float()
    pixels = F.l1_loss(decoded, pictures)
    edges = F.l1_loss(decoded.diff(dim=-1), pictures.diff(dim=-1)) + F.l1_loss(
        decoded.diff(dim=-2), pictures.diff(dim=-2)
    )
    coarse = F.l1_loss(F.avg_pool2d(decoded, 2), F.avg_pool2d(pictures, 2))
    # Absolute differences alone learn outlines long before colours; squares of patch means mend that.
    colour = F.mse_loss(F.avg_pool2d(decoded, 8), F.avg_pool2d(pictures, 8))
    squares = F.mse_loss(decoded, pictures)
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return {
        "loss": pixels + 0.5 * edges + coarse + 2 * squares + 4 * colour + KL_WEIGHT * kl,
        "pixels": pixels.detach(),
        "kl": kl.detach(),
    }


def train_vae(run: Run, *, batch_size: int = 32, workers: int = 1) -> AutoencoderKL:
    """Train the autoencoder and save it, with its measured scale and shift, to run.out/vae.

    Raises SdgError as `fit` does.
    """
    torch.manual_seed(run.seed)
    vae = new_vae()

    def loss_of(crops: NDArray[np.uint8]) -> dict[str, Tensor]:
        return vae_loss(vae, to_tensor(crops))

    def save(averaged: AutoencoderKL, step: int) -> None:
        calibrate(averaged, seed=run.seed + 1)
        replace_folder(run.out / "vae", averaged.save_pretrained)

    data = SeededBatches(partial(sample_crops, count=batch_size), run.seed)
    settings = Hyperparameters(2e-3, weight_decay=0.0, ema=0.998)
    return fit(vae, loss_of, data, run, settings, workers=workers, on_save=save)


@torch.no_grad()
def calibrate(vae: AutoencoderKL, *, seed: int, count: int = 64) -> None:
    """Write the latents' mean and standard deviation over scenes into the config, as FLUX's VAE has them."""
    pictures = _scenes(seed, count)
    latents = vae.encode(pictures).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / float(latents.std()), shift_factor=float(latents.mean()))


def _scenes(seed: int, count: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return to_tensor(np.stack([render(sample_scene(rng)[2]) for _ in range(count)]))
