import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "pytorch"))


def pytest_addoption(parser):
    parser.addoption("--whole", action="store_true", help="every row, on 2 and on 4 ranks; without it, those of the quick part")
