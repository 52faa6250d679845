"""Class names of objects in the features table of a Labels layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari_delse.annotation.review import class_names

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_delse.annotation.actions import LabelledObject


def with_classes(table: Any, names: Mapping[int, str], former: Mapping[int, str]) -> Any:
    """A features table with the class names of objects in its columns "index" (the label) and "class".

    Parameters
    ----------
    table : DataFrame
        The layer's own; its other columns, and the rows of other labels, stay.
    names : mapping of int to str
        Label -> class name.
    former : mapping of int to str
        What was written before; labels that are no longer among the names lose their class.

    Returns
    -------
    DataFrame
        A new one.
    """
    known = table.copy()
    if "index" not in known:
        known["index"] = range(len(known))  # so does napari count rows without it
    known = known.set_index("index")
    known = known[~known.index.duplicated(keep="last")]
    if "class" not in known:
        known["class"] = ""
    gone = [label for label in former if label not in names and label in known.index]
    if list(known.columns) == ["class"]:
        known = known.drop(index=gone)
    else:
        known.loc[gone, "class"] = ""
    known = known.reindex(known.index.union(sorted(names)))
    known["class"] = known["class"].astype(object).where(known["class"].notna(), "")
    known.loc[list(names), "class"] = list(names.values())
    known.index = known.index.astype(int)
    known.index.name = "index"
    return known.reset_index()


class ClassColumn:
    """Keeps the features of Labels layers in step with the class names of their objects."""

    def __init__(self) -> None:
        self._written: WeakKeyDictionary[Labels, dict[int, str]] = WeakKeyDictionary()

    def show(self, layer: Labels, objects: Mapping[int, LabelledObject]) -> None:
        """Write the names if they are not the ones that were written last."""
        names, former = class_names(objects), self._written.get(layer, {})
        if names != former:
            layer.features = with_classes(layer.features, names, former)
            self._written[layer] = names
