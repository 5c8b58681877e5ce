"""What TensorBoard would show of a folder."""

import struct
from collections import defaultdict

from tensorboardX.proto.event_pb2 import Event

from pipeline.storage import Place


def scalars(folder: Place) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each event, by name. A record is its length, a checksum, the event, a checksum."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for file in folder.files():
        data = file.read()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                found[value.tag].append((event.step, value.simple_value))
    return found
