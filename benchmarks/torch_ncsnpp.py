"""NCSN++ and DDPM++ in PyTorch, with all their options: a yardstick of benchmarks.gpu.

The parts stand in one list in the order of the forward pass, with the names and shapes of the
published PyTorch checkpoints. How it is computed is what PyTorch does best: images lie channels
last, 1x1 convolutions are products, attention is fused, FIR filters are depthwise convolutions.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


class Network(nn.Module):
    """The network for images of `size` pixels a side, with the fields of models.ncsnpp.NCSNpp."""

    def __init__(
        self,
        size: int,
        channels: int = 3,
        *,
        nf: int,
        ch_mult: tuple[int, ...],
        num_res_blocks: int,
        attn_resolutions: tuple[int, ...],
        dropout: float = 0.0,
        resblock_type: str = 'biggan',
        embedding_type: str = 'positional',
        fourier_scale: float = 16.0,
        conditional: bool = True,
        resamp_with_conv: bool = True,
        fir: bool = False,
        fir_kernel: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0),
        progressive: str = 'none',
        progressive_input: str = 'none',
        progressive_combine: str = 'sum',
        skip_rescale: bool = True,
        scale_by_sigma: bool = False,
    ):
        fields = {
            name: value for name, value in vars().items() if name not in ('self', '__class__')
        }
        super().__init__()
        self.fields = fields
        self.levels = len(ch_mult)
        taps = fir_kernel if fir else None
        scale = math.sqrt(0.5) if skip_rescale else 1.0

        def block(n_in, n_out, resample=None):
            if resblock_type == 'ddpm':
                return DDPMBlock(n_in, n_out, 4 * nf * conditional, dropout, scale)
            return BigGANBlock(n_in, n_out, 4 * nf * conditional, dropout, scale, resample)

        def halve(n):
            if resblock_type == 'biggan':
                return block(n, n, Down(taps))
            return ConvDown(n, n, taps) if resamp_with_conv else Down(taps)

        def double(n):
            if resblock_type == 'biggan':
                return block(n, n, Up(taps))
            return ConvUp(n, n, taps) if resamp_with_conv else Up(taps)

        parts = nn.ModuleList()
        if embedding_type == 'fourier':
            parts.append(Frequencies(nf, fourier_scale))
        if conditional:
            parts.append(nn.Linear(2 * nf if embedding_type == 'fourier' else nf, 4 * nf))
            parts.append(nn.Linear(4 * nf, 4 * nf))

        parts.append(conv(channels, nf))
        width, image, pyramid, skips = nf, channels, 0, [nf]
        for level, multiple in enumerate(ch_mult):
            for _ in range(num_res_blocks):
                parts.append(block(width, nf * multiple))
                width = nf * multiple
                if size >> level in attn_resolutions:
                    parts.append(Attention(width, scale))
                skips.append(width)
            if level < self.levels - 1:
                parts.append(halve(width))
                if progressive_input == 'input_skip':
                    parts.append(Combine(image, width, progressive_combine))
                    width *= 2 if progressive_combine == 'cat' else 1
                elif progressive_input == 'residual':
                    parts.append(ConvDown(image, width, taps))
                    image = width
                skips.append(width)
        parts += [block(width, width), Attention(width, scale), block(width, width)]
        for level in reversed(range(self.levels)):
            for _ in range(num_res_blocks + 1):
                parts.append(block(width + skips.pop(), nf * ch_mult[level]))
                width = nf * ch_mult[level]
            if size >> level in attn_resolutions:
                parts.append(Attention(width, scale))
            if progressive == 'output_skip':
                parts += [norm(width), conv(width, channels)]
            elif progressive == 'residual' and level == self.levels - 1:
                parts += [norm(width), conv(width, width)]
            elif progressive == 'residual':
                parts.append(ConvUp(pyramid, width, taps))
            pyramid = width
            if level:
                parts.append(double(width))
        if progressive != 'output_skip':
            parts += [norm(width), conv(width, channels)]
        self.all_modules = parts
        # Of both image pyramids; without parameters and without a number.
        self.pyramid_down, self.pyramid_up, self.scale = Down(taps), Up(taps), scale

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """As models.ncsnpp.NCSNpp of images in [-1, 1], but [batch, channels, height, width]."""
        fields, parts = self.fields, iter(self.all_modules)
        temb = self._embed(labels, parts)
        h = next(parts)(x)
        skips, image = [h], x
        for level in range(self.levels):
            for _ in range(fields['num_res_blocks']):
                h = self._attended(next(parts)(h, temb), level, parts)
                skips.append(h)
            if level < self.levels - 1:
                h = self._resized(h, temb, parts)
                if fields['progressive_input'] == 'input_skip':
                    image = self.pyramid_down(image)
                    h = next(parts)(image, h)
                elif fields['progressive_input'] == 'residual':
                    h = image = (next(parts)(image) + h) * self.scale
                skips.append(h)
        h = next(parts)(h, temb)
        h = next(parts)(h)
        h = next(parts)(h, temb)
        pyramid = None
        for level in reversed(range(self.levels)):
            for _ in range(fields['num_res_blocks'] + 1):
                h = next(parts)(torch.cat([h, skips.pop()], 1), temb)
            h = self._attended(h, level, parts)
            if fields['progressive'] == 'output_skip':
                y = self._head(h, parts)
                pyramid = y if pyramid is None else self.pyramid_up(pyramid) + y
            elif fields['progressive'] == 'residual' and pyramid is None:
                pyramid = self._head(h, parts)
            elif fields['progressive'] == 'residual':
                h = pyramid = (next(parts)(pyramid) + h) * self.scale
            if level:
                h = self._resized(h, temb, parts)
        y = pyramid if fields['progressive'] == 'output_skip' else self._head(h, parts)
        y = y.float()
        return y / labels[:, None, None, None] if fields['scale_by_sigma'] else y

    def _embed(self, labels: Tensor, parts: Iterator[nn.Module]) -> Tensor | None:
        if self.fields['embedding_type'] == 'fourier':
            temb = next(parts)(labels.log())
        else:
            temb = positional(labels, self.fields['nf'])
        if not self.fields['conditional']:
            return None
        temb = functional.silu(next(parts)(temb))
        return next(parts)(temb)

    def _attended(self, h: Tensor, level: int, parts: Iterator[nn.Module]) -> Tensor:
        has_attention = self.fields['size'] >> level in self.fields['attn_resolutions']
        return next(parts)(h) if has_attention else h

    def _resized(self, h: Tensor, temb: Tensor | None, parts: Iterator[nn.Module]) -> Tensor:
        part = next(parts)
        return part(h, temb) if self.fields['resblock_type'] == 'biggan' else part(h)

    def _head(self, h: Tensor, parts: Iterator[nn.Module]) -> Tensor:
        h = functional.silu(next(parts)(h))
        return next(parts)(h)


def conv(n_in: int, n_out: int, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps the size."""
    return nn.Conv2d(n_in, n_out, size, padding=size // 2)


def norm(channels: int) -> nn.GroupNorm:
    """Groups of four channels, or more where there would be over 32 groups."""
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def positional(x: Tensor, size: int) -> Tensor:
    """models.layers.positional_embedding."""
    half = size // 2
    steps = torch.arange(half, device=x.device, dtype=torch.float32)
    angles = x.float()[:, None] * torch.exp(-math.log(1e4) / max(half - 1, 1) * steps)
    return functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, size % 2))


class Frequencies(nn.Module):
    """models.layers.GaussianFourierProjection."""

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.W = nn.Parameter(scale * torch.randn(size), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Sines and cosines."""
        angles = 2 * math.pi * x[:, None] * self.W
        return torch.cat([angles.sin(), angles.cos()], 1)


class NIN(nn.Module):
    """A convolution with 1x1 pixel."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.W = nn.Parameter(torch.randn(n_in, n_out) / math.sqrt(n_in))
        self.b = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """A product over channels, which lie last in memory."""
        return functional.linear(x.permute(0, 2, 3, 1), self.W.t(), self.b).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """models.blocks.AttnBlockpp."""

    def __init__(self, channels: int, scale: float):
        super().__init__()
        self.scale, self.GroupNorm_0 = scale, norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (NIN(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Fused attention over pixels."""
        h = self.GroupNorm_0(x)
        q, k, v = (
            part(h).permute(0, 2, 3, 1).flatten(1, 2)[:, None]
            for part in (self.NIN_0, self.NIN_1, self.NIN_2)
        )
        h = functional.scaled_dot_product_attention(q, k, v)[:, 0]
        h = h.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return (x + self.NIN_3(h)) * self.scale


class Block(nn.Module):
    """What both residual blocks share."""

    def __init__(self, n_in: int, n_out: int, embedding: int, dropout: float, scale: float):
        super().__init__()
        self.scale, self.dropout = scale, dropout
        self.GroupNorm_0, self.Conv_0 = norm(n_in), conv(n_in, n_out)
        if embedding:
            self.Dense_0 = nn.Linear(embedding, n_out)
        self.GroupNorm_1, self.Conv_1 = norm(n_out), conv(n_out, n_out)

    def residual(self, h: Tensor, temb: Tensor | None) -> Tensor:
        """From the first convolution on."""
        h = self.Conv_0(h)
        if temb is not None:
            h = h + self.Dense_0(functional.silu(temb))[:, :, None, None]
        h = functional.silu(self.GroupNorm_1(h))
        return self.Conv_1(functional.dropout(h, self.dropout, self.training))


class DDPMBlock(Block):
    """models.blocks.ResnetBlockDDPMpp."""

    def __init__(self, n_in: int, n_out: int, embedding: int, dropout: float, scale: float):
        super().__init__(n_in, n_out, embedding, dropout, scale)
        if n_in != n_out:
            self.NIN_0 = NIN(n_in, n_out)

    def forward(self, x: Tensor, temb: Tensor | None) -> Tensor:
        """Both branches."""
        h = self.residual(functional.silu(self.GroupNorm_0(x)), temb)
        return ((self.NIN_0(x) if hasattr(self, 'NIN_0') else x) + h) * self.scale


class BigGANBlock(Block):
    """models.blocks.ResnetBlockBigGANpp."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        embedding: int,
        dropout: float,
        scale: float,
        resample: nn.Module | None,
    ):
        super().__init__(n_in, n_out, embedding, dropout, scale)
        self.resample = resample or nn.Identity()
        if resample or n_in != n_out:
            self.Conv_2 = conv(n_in, n_out, 1)

    def forward(self, x: Tensor, temb: Tensor | None) -> Tensor:
        """Both branches change their size first."""
        h = self.residual(self.resample(functional.silu(self.GroupNorm_0(x))), temb)
        x = self.resample(x)
        return ((self.Conv_2(x) if hasattr(self, 'Conv_2') else x) + h) * self.scale


class Combine(nn.Module):
    """models.blocks.Combine."""

    def __init__(self, n_in: int, n_out: int, method: str):
        super().__init__()
        self.Conv_0, self.method = conv(n_in, n_out, 1), method

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        """The sum, or both."""
        x = self.Conv_0(image)
        return x + h if self.method == 'sum' else torch.cat([x, h], 1)


# Changes of size. FIR filters are depthwise convolutions with the outer product of their taps.


def fir(x: Tensor, taps: tuple[float, ...], gain: float = 1.0) -> Tensor:
    """[channels, 1, K, K]: the filter of every channel, with sum `gain`."""
    k = torch.tensor(taps, device=x.device, dtype=torch.float32)
    k = torch.outer(k, k)
    return (gain * k / k.sum()).to(x.dtype).expand(x.shape[1], 1, -1, -1)


class Down(nn.Module):
    """Half the size, by a FIR filter or by averaging."""

    def __init__(self, taps: tuple[float, ...] | None):
        super().__init__()
        self.taps = taps

    def forward(self, x: Tensor) -> Tensor:
        """models.resampling.downsample_2d or naive_downsample_2d."""
        if self.taps is None:
            return functional.avg_pool2d(x, 2)
        padding = (len(self.taps) - 1) // 2
        return functional.conv2d(x, fir(x, self.taps), stride=2, padding=padding, groups=x.shape[1])


class Up(nn.Module):
    """Twice the size, by a FIR filter or by repeating pixels."""

    def __init__(self, taps: tuple[float, ...] | None):
        super().__init__()
        self.taps = taps

    def forward(self, x: Tensor) -> Tensor:
        """models.resampling.upsample_2d or naive_upsample_2d."""
        if self.taps is None:
            return functional.interpolate(x, scale_factor=2)
        padding = (len(self.taps) - 1) // 2
        kernel = fir(x, self.taps, gain=4)
        return functional.conv_transpose2d(x, kernel, stride=2, padding=padding, groups=x.shape[1])


class Resizing(nn.Module):
    """A convolution fused with a change of size; its parameters have the published names."""

    def __init__(self, n_in: int, n_out: int, taps: tuple[float, ...] | None):
        super().__init__()
        self.taps, self.name = taps, 'Conv_0' if taps is None else 'Conv2d_0'
        self.add_module(self.name, conv(n_in, n_out))


class ConvDown(Resizing):
    """models.blocks.Downsample with a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Filter, and convolution at stride 2."""
        part = self.get_submodule(self.name)
        if self.taps is None:
            x = functional.pad(x, (0, 1, 0, 1))
        else:
            padding = len(self.taps) // 2
            x = functional.conv2d(x, fir(x, self.taps), padding=padding, groups=x.shape[1])
        return functional.conv2d(x, part.weight, part.bias, stride=2)


class ConvUp(Resizing):
    """models.blocks.Upsample with a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Transposed convolution, and filter."""
        part = self.get_submodule(self.name)
        if self.taps is None:
            return part(functional.interpolate(x, scale_factor=2))
        weight = part.weight.flip(2, 3).transpose(0, 1)
        y = functional.conv_transpose2d(x, weight, stride=2)
        padding = len(self.taps) // 2 - 1
        y = functional.conv2d(y, fir(y, self.taps, gain=4), padding=padding, groups=y.shape[1])
        return y + part.bias[:, None, None]
