"""TensorBoard's event files, read as TensorBoard reads them."""

import struct

from tensorboardX.proto import event_pb2


def records(path):
    """Yields the records of a file in TensorFlow's framing: length, its checksum, data, their checksum."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield content[at + 12 : at + 12 + length]
        at += 16 + length


def shown(folder):
    """Returns tag -> [(step, value)] as TensorBoard shows them: a file's first event hides what older files have from its step on."""
    curves = {}
    for path in sorted(folder.iterdir()):
        for record in records(path):
            event = event_pb2.Event.FromString(record)
            if event.HasField("session_log"):
                curves = {tag: [p for p in points if p[0] < event.step] for tag, points in curves.items()}
            for value in event.summary.value:
                point = (event.step, value.simple_value if value.HasField("simple_value") else value.image)
                curves.setdefault(value.tag, []).append(point)
    return curves
