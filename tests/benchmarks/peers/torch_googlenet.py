"""GoogLeNet of this project's table in PyTorch, channels last: the peer of a training step."""

import torch
from torch import nn

from pipeline.nn.googlenet import STAGES, STEM_FILTERS, STEMS, InceptionFilters


class Convolution(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, filters: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, filters, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(filters, eps=1e-3),
            nn.ReLU(inplace=True),
        )


class Inception(nn.Module):
    """Figure 2b of the paper."""

    def __init__(self, inputs: int, filters: InceptionFilters) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                Convolution(inputs, filters.conv_1x1, 1),
                nn.Sequential(
                    Convolution(inputs, filters.reduce_3x3, 1),
                    Convolution(filters.reduce_3x3, filters.conv_3x3, 3),
                ),
                nn.Sequential(
                    Convolution(inputs, filters.reduce_5x5, 1),
                    Convolution(filters.reduce_5x5, filters.conv_5x5, 5),
                ),
                nn.Sequential(
                    nn.MaxPool2d(3, 1, padding=1),
                    Convolution(inputs, filters.pool_projection, 1),
                ),
            ]
        )
        self.outputs = (
            filters.conv_1x1 + filters.conv_3x3 + filters.conv_5x5 + filters.pool_projection
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float (n, channels, side, side) to (n, outputs, side, side)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class GoogLeNet(nn.Module):
    """Takes uint8 (n, side, side, 3), gives logits (n, classes)."""

    def __init__(self, classes: int, stem: str, dropout: float = 0.4) -> None:
        super().__init__()
        first, reduce, second = STEM_FILTERS
        kernel, stride = STEMS[stem]
        self.register_buffer("means", torch.full((3, 1, 1), 118.0))
        blocks: list[nn.Module] = [
            Convolution(3, first, kernel, stride),
            nn.MaxPool2d(3, 2, padding=1),
            Convolution(first, reduce, 1),
            Convolution(reduce, second, 3),
        ]
        channels = second
        for modules in STAGES.values():
            blocks.append(nn.MaxPool2d(3, 2, padding=1))
            for filters in modules.values():
                blocks.append(Inception(channels, filters))
                channels = blocks[-1].outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, classes))
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = pixels.permute(0, 3, 1, 2).float() - self.means
        x = self.blocks(x.contiguous(memory_format=torch.channels_last))
        return self.head(x.mean(dim=(2, 3)))
