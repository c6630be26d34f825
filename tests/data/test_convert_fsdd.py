import wave

import numpy as np
import pytest

from experiments import convert_fsdd


def record(folder, name, samples, rate=8_000):
    with wave.open(str(folder / f"{name}.wav"), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def test_recordings_become_plain_arrays_in_the_order_of_their_names(tmp_path):
    record(tmp_path, "3_theo_12", [1, -2, 30_000])
    record(tmp_path, "0_lucas_4", [7])
    found = convert_fsdd.pack(tmp_path)
    assert found["label"].tolist() == [0, 3]
    assert found["speaker"].tolist() == ["lucas", "theo"]
    assert found["index"].tolist() == [4, 12]
    assert found["offsets"].tolist() == [0, 1, 4]
    assert found["audio"].tolist() == [7, 1, -2, 30_000]
    assert all(value.dtype != object for value in found.values())


def test_what_is_no_such_recording_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected recordings named"):
        convert_fsdd.pack(tmp_path)
    record(tmp_path, "3_theo_12", [1], rate=16_000)
    with pytest.raises(ValueError, match=r"got \(1, 2, 16000\)"):
        convert_fsdd.pack(tmp_path)
    record(tmp_path, "theo", [1])
    with pytest.raises(ValueError, match=r"got theo\.wav"):
        convert_fsdd.pack(tmp_path)
