"""The napari widgets: the only modules that import napari and Qt."""
