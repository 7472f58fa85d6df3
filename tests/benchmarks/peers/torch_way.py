"""PyTorch as its documentation shows it: a Dataset of JPEGs, a DataLoader, a training step."""

import math
import random
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from peers.torch_googlenet import GoogLeNet
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset


class MovedImages(Dataset):
    """Reads, decodes and moves one image at a time, by the ranges of the original scripts."""

    def __init__(self, images: Sequence[tuple[str, int]]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return uint8 (64, 64, 3) and the label."""
        name, label = self.images[index]
        moved = cv2.warpAffine(
            cv2.imread(name, cv2.IMREAD_COLOR_RGB),
            _matrix(),
            (64, 64),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return torch.from_numpy(moved), label


def _matrix() -> np.ndarray:
    angle, shear = math.radians(random.uniform(-30, 30)), math.radians(random.uniform(-0.2, 0.2))
    zoom_x, zoom_y = random.uniform(0.8, 1.2), random.uniform(0.8, 1.2)
    side = -1 if random.random() < 0.5 else 1
    matrix = np.array(
        [
            [side * math.cos(angle) * zoom_x, -math.sin(angle + shear) * zoom_y, 0],
            [side * math.sin(angle) * zoom_x, math.cos(angle + shear) * zoom_y, 0],
        ]
    )
    shift = [31.5 + random.uniform(-12.8, 12.8) for _ in range(2)]
    matrix[:, 2] = shift - matrix[:, :2] @ [31.5, 31.5]
    return matrix


def loading(images: Sequence[tuple[str, int]]) -> Callable[[], int]:
    """Return a round that goes through all images once, with two workers that stay."""
    loader = DataLoader(
        MovedImages(images), 64, shuffle=True, num_workers=2, persistent_workers=True
    )

    def do_round() -> int:
        return sum(len(pixels) for pixels, _ in loader)

    return do_round


def training(classes: int, size: int, batch: int, steps: int) -> Callable[[], int]:
    """Return a round of training steps on one batch that lies ready."""
    network = GoogLeNet(classes, "paper", dropout=0.0)
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    pixels, labels = _noise(batch, size), torch.randint(classes, (batch,))

    def do_round() -> int:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(network(pixels), labels, label_smoothing=0.1).backward()
            optimizer.step()
        return steps * batch

    return do_round


def predicting(stem: str, size: int, batch: int, steps: int) -> Callable[[], int]:
    """Return a round of forward passes on one batch that lies ready."""
    network = GoogLeNet(200, stem).eval()
    pixels = _noise(batch, size)

    def do_round() -> int:
        with torch.inference_mode():
            for _ in range(steps):
                network(pixels)
        return steps * batch

    return do_round


def _noise(batch: int, size: int) -> torch.Tensor:
    return torch.randint(256, (batch, size, size, 3), dtype=torch.uint8)
