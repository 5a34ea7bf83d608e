"""A training step of NCSN++ or DDPM++ in PyTorch, compiled, for benchmarks.gpu.

    python -m benchmarks.torch_training FIELDS --dtype bfloat16

FIELDS are those of the network, in JSON. On its standard input it is given a file with a narrow
network: fields, parameters by their published names, and images, labels and outputs of ours, with
which those of PyTorch are compared. Prints a line of JSON in the end.

The step is that of the published experiments: flips, score matching at uniform times, clipping,
Adam, moving average. `tf32` are float32 numbers whose products are TF32; `bfloat16` is autocast.
"""

import argparse
import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.torch_ncsnpp import Network

LR, CLIP, EMA_RATE = 2e-4, 1.0, 0.9999
T_MIN = 1e-5


def vp_loss(network: nn.Module, x0: Tensor) -> Tensor:
    """The mean square of predicted noise less noise, of images in [-1, 1], for the VP SDE."""
    t = T_MIN + (1 - T_MIN) * torch.rand(len(x0), device=x0.device)
    log_alpha = (-0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1)[:, None, None, None]
    z = torch.randn_like(x0)
    x = log_alpha.exp() * x0 + (-torch.expm1(2 * log_alpha)).sqrt() * z
    return (network(x, 999 * t) - z).square().mean()


def ve_loss(network: nn.Module, x0: Tensor) -> Tensor:
    """Half of the sum of (sigma score + noise)^2, of images in [0, 1], for the VE SDE."""
    t = T_MIN + (1 - T_MIN) * torch.rand(len(x0), device=x0.device)
    sigma = 0.01 * (50 / 0.01) ** t
    z = torch.randn_like(x0)
    x = (x0 + 1) / 2 + sigma[:, None, None, None] * z
    score = network(2 * x - 1, sigma)
    return 0.5 * (sigma[:, None, None, None] * score + z).square().sum((1, 2, 3)).mean()


def step(network: nn.Module, dtype: str) -> Callable[[Tensor], None]:
    """What trains the network by a batch of uint8 images, NCHW."""
    average = [p.detach().clone() for p in network.parameters()]
    trained = [p for p in network.parameters() if p.requires_grad]
    on_gpu = trained[0].is_cuda
    optimizer = torch.optim.Adam(trained, lr=LR, betas=(0.9, 0.999), fused=on_gpu)
    loss_of = ve_loss if network.fields['embedding_type'] == 'fourier' else vp_loss

    @torch.compile
    def loss(pixels):
        x0 = pixels.float() / 127.5 - 1
        flips = torch.rand(len(x0), 1, 1, 1, device=x0.device) < 0.5
        return loss_of(network, torch.where(flips, x0.flip(3), x0))

    def autocast():
        if dtype != 'bfloat16':
            return contextlib.nullcontext()
        return torch.autocast('cuda' if on_gpu else 'cpu', torch.bfloat16)

    def run(pixels):
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            value = loss(pixels)
        value.backward()
        nn.utils.clip_grad_norm_(trained, CLIP, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, list(network.parameters()), 1 - EMA_RATE)

    return run


def compare(path: str, device: str) -> float:
    """The greatest difference of outputs from ours, over our greatest value, for the network of a
    file, in float32.
    """
    with np.load(path) as file:
        arrays = dict(file)
    fields, x, labels, y = (arrays.pop(name) for name in ('fields', 'x', 'labels', 'y'))
    network = Network(x.shape[1], x.shape[3], **json.loads(str(fields)))
    network.load_state_dict({name: torch.tensor(value) for name, value in arrays.items()})
    network = network.to(device, memory_format=torch.channels_last).eval()
    images = torch.tensor(x, device=device).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = network(images, torch.tensor(labels, device=device))
    return float(np.abs(found.permute(0, 2, 3, 1).cpu().numpy() - y).max() / np.abs(y).max())


def main() -> None:
    """Compiles, says that it is ready, waits for the name of a file, and prints seconds of a step,
    seconds until the first, bytes, the difference from the file, and the version.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('fields', type=json.loads)
    parser.add_argument('--dtype', choices=['tf32', 'bfloat16'], required=True)
    parser.add_argument('--size', type=int, default=32)
    parser.add_argument('--batch', type=int, default=128)
    parser.add_argument('--repeats', type=int, default=20)
    args = parser.parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    network = Network(args.size, **args.fields).to(device, memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8)
    pixels = pixels.to(device, memory_format=torch.channels_last)
    run, synchronize = step(network, args.dtype), getattr(torch, device).synchronize

    def timed():
        start = time.perf_counter()
        run(pixels)
        synchronize()
        return time.perf_counter() - start

    allow_tf32(True)
    compile_seconds = timed()
    print('ready', flush=True)
    path = input()
    # Now that nothing else runs, the fastest convolutions are looked for.
    torch.backends.cudnn.benchmark = True
    seconds = [timed() for _ in range(args.repeats + 3)][3:]
    allow_tf32(False)
    found = {
        'seconds': statistics.median(seconds),
        'compile_seconds': compile_seconds,
        'bytes': torch.cuda.max_memory_allocated() if device == 'cuda' else math.nan,
        'difference': compare(path, device),
        'version': torch.__version__,
    }
    print(json.dumps(found))


def allow_tf32(allowed: bool) -> None:
    """In products and convolutions of float32 numbers."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


if __name__ == '__main__':
    main()
