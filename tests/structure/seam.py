#!/usr/bin/env python3
"""Checks that the cache reaches its files through util/file_system.hpp alone.

Only so can a test make each of its calls fail: docs/reliability.md.
"""

import pathlib
import re
import sys

FOLDERS = ("cache", "tuning")
# Where the library itself lies, which is no file of the cache.
ALLOWED = {pathlib.Path("cache/location.cpp")}
COMMENT = re.compile(r"//.*$", re.MULTILINE)
AROUND = re.compile(
    r"std::filesystem::(?:exists|is_\w+|status|symlink_status|file_size|last_write_time|space|create_\w+|remove\w*|rename|"
    r"resize_file|permissions|copy\w*|read_symlink|canonical|weakly_canonical|equivalent|hard_link_count|\w*directory_iterator)\b"
    r"|\b(?:[io]?fstream|fopen|freopen|mkstemp|mkdtemp)\b"
    r"|(?<![\w>.])::(?:open|openat|creat|stat|fstat|lstat|fstatat|unlink|unlinkat|rename|renameat|mkdir|mkdirat|rmdir|read|pread|"
    r"write|pwrite|fsync|fdatasync|opendir|readdir|flock|fcntl|truncate|ftruncate|link|symlink|utimensat|chmod|chown)\("
)


def calls_around(src):
    """Each call that goes past the seam, as `file:line: call`."""
    found = []
    for folder in FOLDERS:
        for path in sorted((src / folder).rglob("*.[ch]pp")):
            if path.relative_to(src) in ALLOWED:
                continue
            for number, line in enumerate(COMMENT.sub("", path.read_text()).splitlines(), start=1):
                found += [f"{path.relative_to(src)}:{number}: {match.group()}" for match in AROUND.finditer(line)]
    return found


def main():
    src = pathlib.Path(sys.argv[1])
    if not all((src / folder).is_dir() for folder in FOLDERS):
        print(f"{src}: expected the folders {FOLDERS}: is it src?", file=sys.stderr)
        return 1
    found = calls_around(src)
    for line in found:
        print(f"{line}: the cache reaches files through util/file_system.hpp", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
