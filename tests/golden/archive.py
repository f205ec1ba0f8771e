"""golden.tar.xz, in which the golden vectors lie."""

import lzma
import pathlib
import tarfile

ARCHIVE = pathlib.Path(__file__).resolve().with_name("golden.tar.xz")


def read():
    """{name: content} of its files."""
    with tarfile.open(ARCHIVE) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def write(folder):
    """Makes it of the files in a folder. The same files make the same bytes."""
    with lzma.open(ARCHIVE, "wb", preset=9 | lzma.PRESET_EXTREME) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            member = tarfile.TarInfo(path.name)
            member.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(member, content)
