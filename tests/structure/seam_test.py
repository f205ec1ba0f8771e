#!/usr/bin/env python3
"""seam.py finds what goes past the seam, and nothing else."""

import pathlib
import tempfile
import unittest

import seam


class Seam(unittest.TestCase):
    def found_in(self, text, name="cache/a.cpp", look=seam.calls_around):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
            return look(pathlib.Path(folder))

    def test_calls_past_it_are_found(self):
        for call in ("std::filesystem::remove_all(root);", "std::ofstream out(file);", "::rename(from, to);", "if (::stat(p, &s)) {",
                     "for (auto& e : std::filesystem::recursive_directory_iterator(root))"):
            self.assertEqual(len(self.found_in(call)), 1, call)

    def test_what_only_looks_like_one_is_none(self):
        for text in ("files.rename(from, to);", "std::string State::write(const Path& p)", "// std::filesystem::remove would",
                     "std::filesystem::path a = b / c;", "files_.open(path, flags, 0600)", "CompilerIdentity::open() {"):
            self.assertEqual(self.found_in(text), [], text)

    def test_paths_in_a_layer_are_found(self):
        for text in ("files.status(util::At(entry_file(layer.root, key)), status)", "files.open(At(file), O_RDONLY, 0)"):
            self.assertEqual(len(self.found_in(text, look=seam.paths_in)), 1, text)

    def test_names_in_folders_and_the_root_are_none(self):
        for text in ("util::At(kernels.reference(), name)", "folder.at(file)", "util::At(layer.root)"):
            self.assertEqual(self.found_in(text, "cache/folder.cpp", seam.paths_in), [], text)

    def test_where_the_library_lies_is_no_file_of_the_cache(self):
        self.assertEqual(self.found_in("std::filesystem::is_directory(installed)", "cache/location.cpp"), [])


if __name__ == "__main__":
    unittest.main()
