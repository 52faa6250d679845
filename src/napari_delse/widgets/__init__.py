"""The napari widgets: the only modules that import napari and Qt.

`annotate`, `finetune` and `batch` are the widgets; the modules beside them are shared, the folders belong to one each.
"""
