"""Turns MHD's tensors into plain arrays, once, in any environment that has PyTorch.

    python -m experiments.convert_mhd mhd_train.pt mhd_test.pt --output $JNF_DATA_DIR/mhd

The authors' files are what `torch.save` made of (labels, images, trajectories, sounds, ..). They are read with `weights_only=True`, which builds
tensors and containers alone and runs no code of the file. The project itself never reads them, and does not need PyTorch.
"""

import argparse
import pathlib

import numpy as np


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    for path in arguments.files:
        if path.stem not in ("mhd_train", "mhd_test"):
            parser.error(f"Expected mhd_train.pt or mhd_test.pt, got {path.name}.")
        if not path.is_file():
            parser.error(f"Expected a file, got none at {path}.")
    try:
        import torch
    except ImportError:
        parser.error("Expected an environment with PyTorch, got none: pip install torch.")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for path in arguments.files:
        labels, images, trajectories, sounds, *_ = torch.load(path, map_location="cpu", weights_only=True)
        arrays = {"label": labels, "image": images, "trajectory": trajectories, "audio": sounds}
        target = arguments.output / f"{path.stem}.npz"
        np.savez(target, **{name: np.asarray(value) for name, value in arrays.items()})
        print(f"written: {target} " + ", ".join(f"{name} {tuple(value.shape)}" for name, value in arrays.items()))


if __name__ == "__main__":
    main()
