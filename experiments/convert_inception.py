"""Turns Inception-v3's standard FID weights into plain arrays, once, in any environment that has PyTorch.

    python -m experiments.convert_inception pt_inception-2015-12-05-6726825d.pth --output inception_fid.npz

The file is the one that pytorch-fid publishes (release `fid_weights`), converted there from TensorFlow's; its name carries the beginning of its
SHA-256, which is checked. It is read with `weights_only=True`, which builds tensors alone and runs no code of the file. The project itself never
reads it, and does not need PyTorch: `python -m experiments.evaluate --inception inception_fid.npz`.
"""

import argparse
import hashlib
import pathlib

import numpy as np

_SHA256_BEGINS = "6726825d"


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if not arguments.file.is_file():
        parser.error(f"Expected a file, got none at {arguments.file}.")
    found = hashlib.sha256(arguments.file.read_bytes()).hexdigest()
    if not found.startswith(_SHA256_BEGINS):
        parser.error(f"Expected a file whose SHA-256 begins with {_SHA256_BEGINS}, got {found} for {arguments.file}.")
    try:
        import torch
    except ImportError:
        parser.error("Expected an environment with PyTorch, got none: pip install torch.")
    arrays = torch.load(arguments.file, map_location="cpu", weights_only=True)
    np.savez(arguments.output, **{name: value.numpy() for name, value in arrays.items()})
    print(f"written: {arguments.output}, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
