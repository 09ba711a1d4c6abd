"""Writes folders of pictures whose classes have one look each, whatever site they are at.

Usage: sites.py DIRECTORY SITE=CLASS,CLASS... [SITE=...]"""

import pathlib
import random
import struct
import sys
import zlib

SIDE = 16
LOOKS = {"ant": (200, 40, 40), "bee": (40, 200, 40), "cow": (40, 40, 200), "aardvark": (200, 200, 40)}


def png(colour, rng):
    rows = b"".join(b"\0" + bytes(max(0, min(255, c + rng.randint(-40, 40))) for _ in range(SIDE) for c in colour)
                    for _ in range(SIDE))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def main():
    rng = random.Random(7)
    for site in sys.argv[2:]:
        name, classes = site.split("=")
        for split, count in (("train", 16), ("test", 8)):
            for label in classes.split(","):
                folder = pathlib.Path(sys.argv[1]) / name / split / label
                folder.mkdir(parents=True)
                for i in range(count):
                    (folder / f"{i:02}.png").write_bytes(png(LOOKS[label], rng))


main()
