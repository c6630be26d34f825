"""Packs the recordings of the Free Spoken Digit Dataset into one file of plain arrays, once.

    python -m experiments.convert_fsdd free-spoken-digit-dataset/recordings --output $JNF_DATA_DIR/fsdd

The recordings (https://github.com/Jakobovski/free-spoken-digit-dataset) are named `<digit>_<speaker>_<index>.wav`: mono, 16 bits, 8 kHz.
"""

import argparse
import pathlib
import re
import wave

import numpy as np

from experiments import experiment

_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)")
_FORMAT = (1, 2, 8_000)  # channels, bytes a sample, samples a second


def main() -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=pathlib.Path, help="folder of the .wav files")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arrays = pack(arguments.recordings)
    arguments.output.mkdir(parents=True, exist_ok=True)
    target = arguments.output / "fsdd_8k_int16.npz"
    np.savez_compressed(target, **arrays)
    print(f"written: {target}, {len(arrays['label'])} recordings of {len(set(arrays['speaker']))} speakers")
    return 0


def pack(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns `audio` (all recordings, int16), `offsets` `[R + 1]`, and `label`, `speaker` and `index` `[R]`, in the order of the files' names.

    Raises:
      ValueError: if there is no recording, or one of another name or format.
    """
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise ValueError(f"Expected recordings named <digit>_<speaker>_<index>.wav in {folder}, got none.")
    named = [(path, _NAME.fullmatch(path.stem)) for path in paths]
    for path, match in named:
        if match is None:
            raise ValueError(f"Expected a recording named <digit>_<speaker>_<index>.wav, got {path.name}.")
    audio = [_read(path) for path in paths]
    labels, speakers, indices = zip(*(match.groups() for _, match in named), strict=True)
    return {
        "audio": np.concatenate(audio),
        "offsets": np.cumsum([0, *map(len, audio)]),
        "label": np.asarray(labels, np.int32),
        "speaker": np.asarray(speakers),
        "index": np.asarray(indices, np.int32),
    }


def _read(path: pathlib.Path) -> np.ndarray:
    try:
        with wave.open(str(path)) as file:
            found = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            recorded = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"Expected a .wav file, got {path.name}: {error or 'it is empty or cut off'}.") from error
    if found != _FORMAT:
        raise ValueError(f"Expected (channels, bytes, rate) of {_FORMAT} in {path.name}, got {found}.")
    return np.frombuffer(recorded, "<i2")


if __name__ == "__main__":
    experiment.main(main)
