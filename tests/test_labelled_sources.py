"""A journal is a source: labels made anew, strokes of the brush included, with the clicks and drags."""

import numpy as np
import pytest
import torch

from napari_delse.annotation.edits import ArrayLabels, PlaneKey
from napari_delse.annotation.journal import restore
from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.finetuning.labelled_sources import ArraySource, JournalSource
from napari_delse.finetuning.objects import training_pack
from napari_delse.finetuning.survey import survey
from napari_delse.geometry import ExtremePoints, ObjectMask


@pytest.fixture
def journal(disks, annotated, tmp_path):
    """Image, labels and the journal that made them: ids count on over the planes."""
    image, labels = disks(4)
    annotated(image, labels, tmp_path / "work.jsonl", drags=2)
    return image, labels, tmp_path / "work.jsonl"


def test_a_journal_gives_the_labels_and_what_was_clicked(journal):
    image, labels, path = journal
    planes = list(JournalSource(path, image).planes())
    assert [plane.number for plane in planes] == [0, 1, 2, 3]
    for plane, truth in zip(planes, labels, strict=True):
        ids = plane.ids(0, 0, 96, 96)
        assert ((ids > 0) == (truth > 0)).all()
        assert set(plane.prompts) == set(np.unique(ids)) - {0}
        for label, said in plane.prompts.items():
            assert set(said.prompt.points) == set(ExtremePoints.from_mask(ids == label).points)
    assert [len(said.corrections) for said in planes[0].prompts.values()] == [1, 1, 0, 0]


def test_strokes_of_the_brush_count(journal):
    image, _, path = journal
    store = ArrayLabels(np.zeros(image.shape, np.uint16))
    session = restore(path, store)
    plane, where = PlaneKey((1, 2), (0,)), np.ones((3, 4), bool)
    old = store.read(plane, slice(0, 3), slice(0, 4)).copy()
    store.write(plane, slice(0, 3), slice(0, 4), where, 1)
    session.note_painted([(plane, ObjectMask(where, (0, 0)), old[where], 1)])
    session.recorder.close()
    first = next(JournalSource(path, image).planes())
    assert (first.ids(0, 0, 3, 4) == 1).all()


def test_recorded_clicks_and_drags_reach_the_training_objects(journal):
    image, labels, path = journal
    source = JournalSource(path, image)
    found = survey(source)
    assert (found.prompted, found.dragged) == (16, 2)
    config = FineTuneConfig(replay=0)
    pack = training_pack(source, found, config, 64)
    assert pack.prompt[:, 0].isfinite().all()
    assert pack.drags[:, 0].isfinite().all(dim=(1, 2)).sum() == 2
    clicks = pack.prompt[:, :4]  # they span the object on its canvas
    assert torch.allclose(clicks.amin(dim=1), pack.hull.amin(dim=1), atol=1e-3)
    assert torch.allclose(clicks.amax(dim=1), pack.hull.amax(dim=1), atol=1e-3)
    silent = ArraySource(image, labels)
    assert not training_pack(silent, survey(silent), config, 64).prompt.isfinite().any()


def test_labels_from_before_are_needed_where_there_were_some(journal, tmp_path):
    image, _, path = journal
    text = path.read_text()
    assert survey(JournalSource(path, image[:3])).problems  # another image
    path.write_text(text.replace('"crc":"', '"crc":"0', 1))
    assert survey(JournalSource(path, image)).problems
