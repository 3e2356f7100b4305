"""Reads a copy's superblock (docs/ondisk_format.md 2 and 3; internal metadata), as a careful administrator would before she
promotes the peer of a dead node: what stands there is what that node has decided.

Not responsible for damage: a copy that makes no sense is taken for absent.
"""

import collections
import struct

_SLOT = 65536
_SECTOR_PAYLOAD = 496

Record = collections.namedtuple("Record", "volume_bytes term members primary seen is_inconsistent is_outdated is_created_only")


def read_record(path):
    """The newer of the two copies."""
    with open(path, "rb") as device:
        end = device.seek(0, 2) // 4096 * 4096
        found = [record for record in (_read_copy(device, end - 2 * _SLOT), _read_copy(device, end - _SLOT)) if record]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _read_copy(device, offset):
    device.seek(offset)
    slot = device.read(_SLOT)
    sectors = [slot[at:at + 512] for at in range(0, _SLOT, 512)]
    header = sectors[0]
    if header[:8] != b"replblkS":
        return None
    sequence = header[496:504]
    record_bytes = struct.unpack_from("<I", header, 120)[0]
    used = sectors[1:1 + (record_bytes + _SECTOR_PAYLOAD - 1) // _SECTOR_PAYLOAD]
    if any(sector[496:504] != sequence for sector in used):
        return None  # Half written: the other copy holds.
    fields = _protobuf(b"".join(sector[:_SECTOR_PAYLOAD] for sector in used)[:record_bytes])
    primary = fields.get(4, 0) - 1
    return int.from_bytes(sequence, "little"), Record(
        struct.unpack_from("<Q", header, 56)[0], fields.get(2, 0), {node for node in (0, 1) if fields.get(3, 0) >> node & 1},
        primary if primary >= 0 else None, fields.get(5, 0), bool(fields.get(12)), bool(fields.get(13)), 7 not in fields)


def _protobuf(data):
    """Field number: last value. Varints as numbers, everything else as bytes."""
    fields, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        key = varint()
        if key & 7 == 0:
            fields[key >> 3] = varint()
            continue
        length = {1: 8, 5: 4}.get(key & 7) or varint()
        fields[key >> 3] = data[at:at + length]
        at += length
    return fields


def higher(one, two):
    """protocol.md 3.3: which record's configuration rules; None: a split."""
    if one.term != two.term:
        return one if one.term > two.term else two
    if one.members == two.members:
        return one
    return min(one, two, key=lambda record: len(record.members)) if len(one.members) != len(two.members) else None
