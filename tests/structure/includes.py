#!/usr/bin/env python3
"""Checks what the folders of src include: docs/design.md, "Rooms".

No two folders include each other, directly or by way of others, and only the registry includes a kernel family.
"""

import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
SUFFIXES = {".h", ".hpp", ".cpp", ".inl"}
FAMILY = re.compile(r"^extern const (?:Product|Gradient)Family \w+;", re.MULTILINE)


def folder_of(path):
    return path.parts[0] if len(path.parts) > 1 else "src itself"


def includes_of(src):
    """Of each file, by its path below src: the files of src that it includes."""
    src = src.resolve()
    sources = [path for path in sorted(src.rglob("*")) if path.suffix in SUFFIXES]
    return {path.relative_to(src): list(included_by(path, src)) for path in sources}


def included_by(path, src):
    """As the compiler looks for them: beside the file, then below src."""
    for name in INCLUDE.findall(path.read_text()):
        for folder in (path.parent, src):
            file = (folder / name).resolve()
            if file.is_file() and file.is_relative_to(src):
                yield file.relative_to(src)
                break


def arrows_between_folders(includes):
    """Of each folder: the folders that it includes, and by which line."""
    arrows = {}
    for path, included in includes.items():
        for other in included:
            if folder_of(path) != folder_of(other):
                arrows.setdefault(folder_of(path), {}).setdefault(folder_of(other), f"{path} includes {other}")
    return arrows


def cycles_of(arrows):
    """A shortest cycle through each folder that lies on one, each cycle once."""
    found = {}
    for start in arrows:
        paths = [[start]]
        seen = set()
        while paths and frozenset(paths[0]) not in found:
            path = paths.pop(0)
            for next_folder in arrows.get(path[-1], {}):
                if next_folder == start:
                    found.setdefault(frozenset(path), [*path, start])
                    paths = []
                    break
                if next_folder not in seen:
                    seen.add(next_folder)
                    paths.append([*path, next_folder])
    return found.values()


def complaints(src):
    includes = includes_of(src)
    if len(includes) < 100:
        yield f"{src} has {len(includes)} sources: is it src?"
    arrows = arrows_between_folders(includes)
    for cycle in cycles_of(arrows):
        lines = "".join(f"\n  {arrows[a][b]}" for a, b in zip(cycle, cycle[1:], strict=False))
        yield f"{' -> '.join(cycle)}:{lines}"

    families = [path for path in includes if path.suffix == ".hpp" and FAMILY.search((src / path).read_text())]
    if len(families) < 4:
        yield f"{len(families)} kernel families were found: are they declared otherwise now?"
    for path, included in includes.items():
        for family in families:
            allowed = path in {family.with_suffix(".cpp"), pathlib.PurePath("families/registry.cpp")}
            if family in included and not allowed:
                yield f"{path} includes {family}: only the registry may know a family"


def main():
    found = list(complaints(pathlib.Path(sys.argv[1])))
    for complaint in found:
        print(complaint)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
