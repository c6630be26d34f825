"""Examples that stay in a file and are read when they are asked for, for data larger than the memory. No jax here."""

import math
import os
import pathlib
from collections.abc import Callable

import numpy as np

_MOST = 1 << 30  # bytes that one system call is asked for


class Rows:
    """Examples `[N, ..]` in an .npy file; indexing reads.

    It has what training asks of an array: a length, `shape`, `dtype`, and indexing by a slice or by row numbers, which returns a numpy array.
    Rows are read into memory of their own: pages of a memory-mapped file would count as memory of the process.

    Args:
      path: of the file.
      rows: numbers of the file's rows that these examples are; all of them where None.
      check: called with each array that is read; raises where its values make no sense.

    Raises:
      ValueError: if it is no .npy file of plain numbers in C order.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        rows: np.ndarray | None = None,
        *,
        check: Callable[[np.ndarray], None] = lambda array: None,
    ):
        self.path = pathlib.Path(path)
        self._rows = rows
        self._check = check
        try:
            header = np.lib.format.open_memmap(self.path, mode="r")
        except ValueError as error:
            raise ValueError(f"Expected an .npy file of plain numbers at {str(path)!r}: {error}") from error
        if not header.ndim or not header.flags.c_contiguous:
            raise ValueError(f"Expected an array of examples in C order in {str(path)!r}, got one of shape {header.shape}.")
        self.dtype = header.dtype
        self.shape = (header.shape[0] if rows is None else len(rows), *header.shape[1:])
        self._num_in_file, self._offset = header.shape[0], header.offset
        self._file = self.path.open("rb", buffering=0)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        if isinstance(index, slice):
            chosen = np.arange(*index.indices(len(self)))
        else:
            chosen = np.asarray(index)
            chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
            if chosen.size and not -len(self) <= chosen.min() <= chosen.max() < len(self):
                raise IndexError(f"Expected rows of {len(self)} examples, got {chosen.min()} to {chosen.max()}.")
            chosen = chosen % len(self)
        array = self._read(chosen if self._rows is None else self._rows[chosen])
        self._check(array)
        return array

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    @property
    def ndim(self) -> int:
        """Number of axes; without it `np.ndim` would read everything."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all examples."""
        return math.prod(self.shape) * self.dtype.itemsize

    def select(self, rows: np.ndarray) -> "Rows":
        """Returns the examples of these numbers; nothing is read."""
        return Rows(self.path, rows if self._rows is None else self._rows[rows], check=self._check)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        array = np.empty((len(rows), *self.shape[1:]), self.dtype)
        size = array[:1].nbytes
        if not array.nbytes:
            return array
        buffer = memoryview(array.reshape(-1).view(np.uint8))
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of runs of neighbours, read at once
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            self._fill(buffer[start * size : end * size], self._offset + int(rows[start]) * size)
        return array

    def _fill(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):
            got = os.preadv(self._file.fileno(), [buffer[done : done + _MOST]], offset + done)
            if not got:
                raise ValueError(f"Expected {self._num_in_file} whole examples in {str(self.path)!r}, got a shorter file.")
            done += got
