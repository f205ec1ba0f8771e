#!/usr/bin/env python3
"""Checks that the cache reaches its files through util/file_system.hpp alone, and what is in a layer through cache/folder.hpp.

Only so can a test make each of its calls fail, and only so is every folder looked at: docs/reliability.md.
"""

import pathlib
import re
import sys

FOLDERS = ("cache", "tuning")
# Where the library itself lies, which is no file of the cache.
ALLOWED = {pathlib.Path("cache/location.cpp")}
# Paths that lead to the root of a layer or above it, and to the library; all others are names in a cache::Folder.
PATH = re.compile(r"\bAt\(([^,()]*(?:\([^()]*\))?[^,()]*)\)")
PATHS = {
    ("cache/cache_care.cpp", "root"),
    ("cache/cache_state.cpp", "folder"),
    ("cache/folder.cpp", "layer.root"),
    ("cache/share.cpp", "at.parent_path()"),
    ("cache/trust.cpp", "file"),
    ("cache/trust.cpp", "at.parent_path()"),
}
COMMENT = re.compile(r"//.*$", re.MULTILINE)
AROUND = re.compile(
    r"std::filesystem::(?:exists|is_\w+|status|symlink_status|file_size|last_write_time|space|create_\w+|remove\w*|rename|"
    r"resize_file|permissions|copy\w*|read_symlink|canonical|weakly_canonical|equivalent|hard_link_count|\w*directory_iterator)\b"
    r"|\b(?:[io]?fstream|fopen|freopen|mkstemp|mkdtemp)\b"
    r"|(?<![\w>.])::(?:open|openat|creat|stat|fstat|lstat|fstatat|unlink|unlinkat|rename|renameat|mkdir|mkdirat|rmdir|read|pread|"
    r"write|pwrite|fsync|fdatasync|opendir|readdir|flock|fcntl|truncate|ftruncate|link|symlink|utimensat|chmod|chown)\("
)


def lines_of(src, folders, allowed=frozenset()):
    for folder in folders:
        for path in sorted((src / folder).rglob("*.[ch]pp")):
            if path.relative_to(src) in allowed:
                continue
            for number, line in enumerate(COMMENT.sub("", path.read_text()).splitlines(), start=1):
                yield path.relative_to(src), number, line


def calls_around(src):
    """Each call that goes past the seam, as `file:line: call`."""
    return [f"{path}:{number}: {match.group()}" for path, number, line in lines_of(src, FOLDERS, ALLOWED) for match in AROUND.finditer(line)]


def paths_in(src):
    """Each path that is used where a name in a folder was to be, likewise."""
    return [
        f"{path}:{number}: {match.group()}"
        for path, number, line in lines_of(src, (*FOLDERS, "jit"))
        for match in PATH.finditer(line)
        if (str(path), match.group(1)) not in PATHS
    ]


def main():
    src = pathlib.Path(sys.argv[1])
    if not all((src / folder).is_dir() for folder in FOLDERS):
        print(f"{src}: expected the folders {FOLDERS}: is it src?", file=sys.stderr)
        return 1
    calls, paths = calls_around(src), paths_in(src)
    for line in calls:
        print(f"{line}: the cache reaches files through util/file_system.hpp", file=sys.stderr)
    for line in paths:
        print(f"{line}: the cache reaches what is in a layer through cache/folder.hpp", file=sys.stderr)
    return 1 if calls or paths else 0


if __name__ == "__main__":
    sys.exit(main())
