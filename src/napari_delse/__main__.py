"""``python -m napari_delse`` does what the command ``napari-delse`` does."""

from napari_delse.cli import main

if __name__ == "__main__":
    main()
