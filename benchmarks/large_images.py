"""Peak memory and time of one large matting prediction, the arrays of the image and the process itself included.

The network is the default one with index networks (m2o, nonlinear, with context), random weights: neither memory nor
time depends on them. The prediction runs as `indexnet predict` runs it, through the task, in a fresh process.

    python benchmarks/large_images.py                          # 4000x3000, what the machine has free
    python benchmarks/large_images.py --memory 4GB --check     # exit 1 where the process held more than that
    python benchmarks/large_images.py --size 1600x1200 --memory none
    python benchmarks/large_images.py --image PHOTO --trimap TRIMAP --memory 2GB   # resized to --size
    python benchmarks/large_images.py --seams --image PHOTO --trimap TRIMAP        # tiles against the whole image
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np


def picture(width: int, height: int, image: str | None, trimap: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph and its trimap at a size; a disc with a soft edge over noise without them."""
    import cv2

    if image and trimap:
        colours = cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2RGB)
        known = cv2.imread(trimap, cv2.IMREAD_GRAYSCALE)
        return (
            cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC),
            cv2.resize(known, (width, height), interpolation=cv2.INTER_NEAREST),
        )
    small = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    known = np.zeros((height, width), np.uint8)
    centre, radius = (width // 2, height // 2), min(width, height) // 3
    cv2.circle(known, centre, radius + radius // 6, 128, -1)
    cv2.circle(known, centre, radius - radius // 6, 255, -1)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), known


def seams(image: np.ndarray, trimap: np.ndarray, margins: list[int]) -> None:
    """Print how far tiles of the smallest size differ from the whole image, in levels of 255."""
    import torch

    from indexnet.networks import create_network
    from indexnet.networks.tiled.matting_protocol import prepare_input
    from indexnet.networks.tiled.tiling import run_tiled

    height, width = (side // 32 * 32 for side in trimap.shape)
    rgb = torch.from_numpy(image[:height, :width].transpose(2, 0, 1)[None].astype(np.float32) / 255)
    x = prepare_input(rgb, torch.from_numpy(trimap[None, None, :height, :width].astype(np.float32) / 255))
    torch.manual_seed(0)
    network = create_network("matting_unet", resampling="indexnet").eval()
    with torch.no_grad():
        whole = network(x)[0, 0].numpy()
    print(f"{width}x{height}; the output's standard deviation is {255 * whole.std():.1f} levels")
    for margin in margins:
        tiled = run_tiled(network, x, np.ones((height, width), bool), (2 * margin + 256) ** 2, 32, margin)
        print(f"margin {margin}: largest difference {255 * np.abs(tiled - whole).max():.4f} levels", flush=True)


def main() -> int:
    """Run one prediction, or compare margins.

    Returns:
        1 with ``--check`` where the process held more than ``--memory``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="4000x3000", metavar="WIDTHxHEIGHT")
    parser.add_argument("--memory", default="auto")
    parser.add_argument("--image")
    parser.add_argument("--trimap")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seams", nargs="?", const="64,128,192,224", metavar="MARGIN,...")
    args = parser.parse_args()
    import torch

    from indexnet.inference.loading import parse_memory, predict_sample
    from indexnet.networks import create_network
    from indexnet.tasks.matting import MattingTask

    torch.set_num_threads(args.threads)
    width, height = map(int, args.size.split("x"))
    image, trimap = picture(width, height, args.image, args.trimap)
    if args.seams:
        seams(image, trimap, [int(margin) for margin in args.seams.split(",")])
        return 0
    torch.manual_seed(0)
    task = MattingTask(create_network("matting_unet", resampling="indexnet")).eval()
    task.memory = parse_memory(args.memory)
    begun = time.monotonic()
    alpha = predict_sample(task, task.image_sample(image, trimap))
    seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    unknown = (trimap == 128).mean()
    print(
        f"{width}x{height}, {unknown:.0%} unknown, memory={args.memory}: peak of the process {peak / 1e9:.2f} GB, "
        f"{seconds:.0f} s on {args.threads} threads, alpha {tuple(alpha.shape)}"
    )
    return int(args.check and isinstance(task.memory, int) and peak > task.memory)


if __name__ == "__main__":
    sys.exit(main())
