"""Compressed bytes of recordings; of those that are cut off, what is before the cut."""

import sys
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD = b"\x28\xb5\x2f\xfd"  # how its bytes begin; no CDR message does
_BLOCK = 1 << 20  # bytes


class CompressionError(ValueError):
    """Bytes that cannot be decompressed.

    Attributes:
        partial: what could be.
    """

    def __init__(self, problem: object, partial: bytes = b"") -> None:
        self.partial = partial
        super().__init__(problem)


def decompress(data: bytes, kind: str) -> bytes:
    """The bytes that were compressed by "zstd" or "lz4"; "" leaves them as they are.

    Raises:
        CompressionError: damaged or cut off.
        LookupError: another kind, or its library is not installed.
    """
    if not kind:
        return data
    if kind == "zstd":
        make, error = zstd.ZstdDecompressor, zstd.ZstdError
    elif kind == "lz4":
        try:
            import lz4.frame
        except ImportError:
            raise LookupError("lz4, which is not installed") from None
        make, error = lz4.frame.LZ4FrameDecompressor, RuntimeError
    else:
        raise LookupError(repr(kind))
    frames: list[bytes] = []
    while data:
        decompressor = make()
        try:
            frames.append(decompressor.decompress(data))
        except error as problem:
            raise CompressionError(problem, b"".join(frames)) from None
        if not decompressor.eof:
            raise CompressionError("it is cut off", b"".join(frames))
        data = decompressor.unused_data
    return frames[0] if len(frames) == 1 else b"".join(frames)


def decompress_file(source: Path, target: Path) -> str | None:
    """Write what a zstd file holds to another file; returns what is wrong with it, if anything."""
    with zstd.open(source, "rb") as packed, target.open("wb") as out:
        try:
            while block := packed.read(_BLOCK):
                out.write(block)
        except (EOFError, zstd.ZstdError) as error:
            return str(error)
    return None
