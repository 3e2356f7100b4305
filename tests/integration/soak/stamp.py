"""Stamped sectors: (writer, sequence, LBA, checksum), repeated to 512 bytes, so that a misplaced, torn or mixed one shows."""

import struct
import zlib

SECTOR = 512
_HEAD = struct.Struct("<4sIQQ")
_MAGIC = b"soak"
_REPEATS = SECTOR // 32
_ZEROES = bytes(SECTOR)
_SEQUENCE_BITS = 40


def number_of(writer, sequence):
    """What the register knows the write by. Never 0, which is a fresh sector."""
    return writer + 1 << _SEQUENCE_BITS | sequence


def stamped(number, sectors):
    """The data of a write of that range of sectors."""
    pieces = []
    for lba in sectors:
        head = _HEAD.pack(_MAGIC, number >> _SEQUENCE_BITS, number & (1 << _SEQUENCE_BITS) - 1, lba)
        pieces.append((head + struct.pack("<II", zlib.crc32(head), 0)) * _REPEATS)
    return b"".join(pieces)


def number_in(sector, lba):
    """The number of the write whose sector this is, 0 for zeroes, None when it is no sector of this place."""
    if sector == _ZEROES:
        return 0
    head = sector[:32]
    magic, writer, sequence, place = _HEAD.unpack_from(head)
    if magic != _MAGIC or place != lba or struct.unpack_from("<I", head, 24)[0] != zlib.crc32(head[:24]) or head * _REPEATS != sector:
        return None
    return writer << _SEQUENCE_BITS | sequence
