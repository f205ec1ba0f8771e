"""That includes.py sees an include however it is written, on a small tree of its own."""

import pathlib
import tempfile
import unittest

from includes import arrows_between_folders, cycles_of, includes_of


class Includes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.src = pathlib.Path(folder.name)
        self.write("ops/call.hpp", '#include "util/files.hpp"\n')
        self.write("util/files.hpp", "#pragma once\n")

    def write(self, name, text):
        path = self.src / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def cycles(self):
        return [sorted(set(cycle)) for cycle in cycles_of(arrows_between_folders(includes_of(self.src)))]

    def test_one_way_is_no_cycle(self):
        self.assertEqual(self.cycles(), [])

    def test_every_way_to_write_an_include_is_seen(self):
        for line in ('#include "ops/call.hpp"', "#include <ops/call.hpp>", '#include "../ops/call.hpp"',
                     '#include "util/../ops/call.hpp"', '#  include"ops/call.hpp"'):
            for name in ("util/other.hpp", "util/other.cpp", "util/other.h", "util/other.inl"):
                with self.subTest(line=line, name=name):
                    self.write(name, line + "\n")
                    self.assertEqual(self.cycles(), [["ops", "util"]])
                    (self.src / name).unlink()


if __name__ == "__main__":
    unittest.main()
