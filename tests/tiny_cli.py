"""The command `napari-delse`, which also knows the tiny architecture of the tests."""

from napari_delse import cli
from napari_delse.model import ARCHITECTURES, Architecture

if __name__ == "__main__":
    ARCHITECTURES["tiny"] = Architecture("basic", (1, 1, 1, 1), (8, 8, 16, 16), 8, False, 5, 8, 0, True, 8, 8, 2)
    cli.main()
