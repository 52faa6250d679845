"""What happens when the export form is opened, filled in and sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_delse.widgets._annotate.exporting import Cancelled, Export, Exporter, IsThereError, suggested

if TYPE_CHECKING:
    from napari_delse.widgets._annotate.export_form import ExportForm
    from napari_delse.widgets._desk import Desk
    from napari_delse.widgets._notices import Notices


class ExportControl:
    """Exports the labels of a desk as the form says.

    Parameters
    ----------
    form : ExportForm
        Where the person says what to write.
    desk : Desk
        What is worked on.
    notices : Notices
        Where the result, or what went wrong, is told.
    """

    def __init__(self, form: ExportForm, desk: Desk, notices: Notices) -> None:
        self.exporter = Exporter()
        self._form, self._desk, self._notices = form, desk, notices
        form.wanted.connect(self._begin)
        form.cancelled.connect(self._on_cancel)
        self.exporter.progress.connect(form.show_progress)
        desk.image_chosen.connect(lambda _: self._on_image())

    def toggle(self) -> None:
        """Open the form, or close it unless it is at work."""
        if not self._form.isVisibleTo(self._form.parentWidget()):
            self._suggest()
            self._form.show()
        elif not self.exporter.is_busy:
            self._form.hide()

    def _suggest(self) -> None:
        source = self._desk.source
        if source is not None:
            path = getattr(source.layer.source, "path", None)
            self._form.suggest(suggested(path, source.layer.name, self._form.suffix, Path.home()))

    def _on_image(self) -> None:
        """Another image has another name."""
        self._form.file_edit.setModified(False)
        self._suggest()
        if self._desk.source is None and not self.exporter.is_busy:
            self._form.hide()

    def _begin(self, kind: str, path: str, replace: bool) -> None:
        desk = self._desk
        if desk.session is None or desk.labels is None or desk.source is None or self.exporter.is_busy:
            return
        layer = desk.source.layer
        file = getattr(layer.source, "path", None)
        image_name = Path(file).name if file else f"{layer.name}.tif"
        place = Path(path).expanduser()
        export = Export.of(kind, place, desk.labels, desk.session.objects, image_name, replace=replace)
        self._form.show_progress(0, 0)
        self._notices.tell("The labels are being written; the work can go on meanwhile.")
        self.exporter.start(export, self._done, self._failed)

    def _done(self, sentence: str) -> None:
        self._form.finish(close=True)
        self._notices.tell(sentence)

    def _failed(self, error: Exception) -> None:
        self._form.finish(close=False)
        if isinstance(error, Cancelled):
            self._notices.tell("The export was cancelled, and nothing was written.")
            return
        if isinstance(error, IsThereError):
            self._form.ask_to_replace()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            error = RuntimeError(f"{self._form.file_edit.text().strip()} could not be written: {reason}")
        self._notices.say(error)

    def _on_cancel(self) -> None:
        if self.exporter.is_busy:
            self.exporter.cancel()
        else:
            self._form.hide()
