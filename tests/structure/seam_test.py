#!/usr/bin/env python3
"""seam.py finds what goes past the seam, and nothing else."""

import pathlib
import tempfile
import unittest

import seam


class Seam(unittest.TestCase):
    def found_in(self, text, name="cache/a.cpp"):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
            return seam.calls_around(pathlib.Path(folder))

    def test_calls_past_it_are_found(self):
        for call in ("std::filesystem::remove_all(root);", "std::ofstream out(file);", "::rename(from, to);", "if (::stat(p, &s)) {",
                     "for (auto& e : std::filesystem::recursive_directory_iterator(root))"):
            self.assertEqual(len(self.found_in(call)), 1, call)

    def test_what_only_looks_like_one_is_none(self):
        for text in ("files.rename(from, to);", "std::string State::write(const Path& p)", "// std::filesystem::remove would",
                     "std::filesystem::path a = b / c;", "files_.open(path, flags, 0600)", "CompilerIdentity::open() {"):
            self.assertEqual(self.found_in(text), [], text)

    def test_where_the_library_lies_is_no_file_of_the_cache(self):
        self.assertEqual(self.found_in("std::filesystem::is_directory(installed)", "cache/location.cpp"), [])


if __name__ == "__main__":
    unittest.main()
