"""A fine-tuning as a folder: prepared at once or not at all, stopped, gone on with, judged."""

import errno
import json
import shutil
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import napari_delse.finetuning.jobs as jobs
from napari_delse.checkpoint import available_models, load_model, save_model
from napari_delse.confidence import FITTED, Calibration
from napari_delse.data.samples import split_planes
from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.finetuning.held_out import ScoredObjects, read_held_out
from napari_delse.finetuning.jobs import delete_job, list_jobs, open_job, prepare, user_jobs
from napari_delse.finetuning.labelled_sources import ArraySource, SampleSource
from napari_delse.finetuning.objects import training_pack
from napari_delse.finetuning.run import fine_tune, finish, locked, run
from napari_delse.finetuning.survey import Split, survey
from napari_delse.train.crops import CropSampler
from napari_delse.train.distributed import World
from napari_delse.train.recipes import read_pack

FAST = FineTuneConfig(
    steps=30, replay=0, freeze_norm=False, learning_rate=5e-3, interactive_share=0, minutes=1, score_objects=8
)
SHORT = replace(FAST, steps=4, minutes=1e-4)  # scored at every step


@pytest.fixture(autouse=True)
def home(own_home):
    return own_home


@pytest.fixture
def source(disks):
    return ArraySource(*disks(4), name="disks")


@pytest.fixture
def job(source, tiny_parent):
    return prepare(source, SHORT, parent=tiny_parent)


# ---------------------------------------------------------------- preparing


def test_a_job_holds_all_it_needs(job, source, tiny_parent):
    assert job.folder == user_jobs() / "disks"
    assert {p.name for p in job.folder.iterdir()} == {
        "job.json", "pack.safetensors", "held_out.safetensors", "parent"
    }  # fmt: skip
    assert job.state == "new"
    assert job.objects == len(read_pack(job.folder / "pack.safetensors")[0].group) == 12
    assert len(read_held_out(job.folder / "held_out.safetensors")) == job.held_out_objects == 4
    assert open_job("disks") == job
    assert list_jobs() == [job]
    shutil.rmtree(tiny_parent)  # nor is the parent needed again
    assert next(run(job)).before.iou


def test_the_same_again_is_the_same_job_and_another_gets_a_name_of_its_own(job, source, disks, tiny_parent):
    assert prepare(source, SHORT, parent=tiny_parent) == job
    assert prepare(source, replace(SHORT, seed=1), parent=tiny_parent).folder.name == "disks-2"
    other = ArraySource(*disks(4, seed=3), name="disks")
    assert prepare(other, SHORT, parent=tiny_parent).folder.name == "disks-3"
    assert prepare(source, SHORT, parent=tiny_parent, fresh=True).folder.name == "disks-4"


def test_a_folder_with_another_training_is_refused(source, tiny_parent, tmp_path):
    first = prepare(source, SHORT, parent=tiny_parent, out=tmp_path / "mine")
    assert first.folder == tmp_path / "mine" / "training"
    with pytest.raises(ValueError, match=r"holds another training .*with other settings: seed"):
        prepare(source, replace(SHORT, seed=1), parent=tiny_parent, out=tmp_path / "mine")


@pytest.mark.parametrize("there", ["training/notes.txt", "model.safetensors"])
def test_nothing_of_somebody_else_is_replaced_by_a_training(source, tiny_parent, tmp_path, there):
    file = tmp_path / "mine" / there
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    for fresh in (False, True):
        with pytest.raises(ValueError, match=r"exists and is not of a training, so it is not replaced; choose another"):
            prepare(source, SHORT, parent=tiny_parent, out=tmp_path / "mine", fresh=fresh)
    assert file.read_text() == "precious"
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_two_trainings_of_one_name_are_prepared_at_once(disks, tiny_parent):
    def read_meanwhile(*_):
        if not inner:
            inner.append(None)
            inner[0] = prepare(other, SHORT, parent=tiny_parent)

    inner = []
    first, other = (ArraySource(*disks(4, seed=seed), name="disks") for seed in (1, 2))
    outer = prepare(first, SHORT, parent=tiny_parent, told=read_meanwhile)
    assert {outer.folder.name, inner[0].folder.name} == {"disks", "disks-2"}
    assert {job.data for job in list_jobs()} == {outer.data, inner[0].data}


def test_at_most_so_many_objects_are_kept(disks, tiny_parent):
    config = replace(SHORT, objects=5, score_objects=3)
    job = prepare(ArraySource(*disks(8)), config, parent=tiny_parent)
    assert (job.objects, job.held_out_objects) == (5, 3)


def test_canvases_show_as_much_around_an_object_as_crops_of_the_parent_do(source, tiny_parent):
    network = load_model(tiny_parent).model
    network.config = replace(network.config, crop=replace(network.config.crop, min_margin=30))
    save_model(tiny_parent, network, {})
    job = prepare(source, replace(SHORT, replay=0.25), parent=tiny_parent)
    pack, _ = read_pack(job.folder / "pack.safetensors")
    assert (pack.group == 1).any()
    assert (pack.hull.amin(dim=(1, 2)) / pack.zoom).min() > 29


@pytest.mark.parametrize("reach", [8, 30])
def test_packed_from_windows_an_object_is_as_from_its_plane(disks, tiny_parent, reach):
    from napari_delse.train.crops import pack_objects

    image, labels = disks(2)
    source = ArraySource(image, labels)
    found = survey(source)
    keys = (*found.split.training, *found.split.held_out)
    everything = replace(found, split=Split(training=tuple(sorted(keys)), held_out=()))
    pack = training_pack(source, everything, SHORT, 64, reach=reach)
    whole = list(pack_objects(split_planes("image", image, labels), 0, 64, reach=reach))
    assert torch.equal(pack.zoom, torch.cat([p.zoom for p in whole]))
    assert torch.allclose(pack.hull, torch.cat([p.hull for p in whole]))
    # Neighbours are the same background as without labels.
    assert (pack.pixels.int() - torch.cat([p.pixels for p in whole]).int()).abs().max() <= 1


def test_unlabelled_neighbours_change_only_what_is_an_example(disks, tiny_parent):
    """A neighbour without a label is background of the labelled object, as it would be with one."""
    image, labels = disks(2)
    partly = labels.copy()
    partly[0][partly[0] > 1] = 0
    packs = []
    for ids in (labels, partly):
        source = ArraySource(image, ids)
        found = survey(source)
        first = tuple(key for key in found.split.training if key == (0, 1))
        packs.append(training_pack(source, replace(found, split=Split(training=first)), SHORT, 96))
    full, part = (CropSampler(load_model(tiny_parent).config, None)(pack) for pack in packs)
    assert torch.equal(full.mask, part.mask)
    assert torch.equal(full.weight, part.weight)
    assert torch.equal(full.image, part.image)


def test_packed_objects_are_not_copied_once_more(disks, monkeypatch):
    source = ArraySource(*disks(2))
    found = survey(source)
    with pytest.raises(ValueError, match="no object to train on"):
        training_pack(source, replace(found, split=Split()), SHORT, 64)
    monkeypatch.setattr("napari_delse.finetuning.objects.join_packs", lambda _: pytest.fail("it was copied"))
    assert len(training_pack(source, found, SHORT, 64).pixels) == len(found.split.training)


def test_wrong_data_leaves_nothing(disks, tiny_parent, home):
    image, labels = disks(2)
    with pytest.raises(ValueError, match="0 labelled objects"):
        prepare(ArraySource(image, labels * 0), SHORT, parent=tiny_parent)
    assert not home.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(source, tiny_parent, home, monkeypatch, number):
    def full(*_):
        raise OSError(number, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "write_held_out", full)
        with pytest.raises(OSError, match=r"not enough room in .* takes about 2.. MB; free some"):
            prepare(source, SHORT, parent=tiny_parent)
    assert not (home / "training").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OSError, match="not enough room"):
        prepare(source, SHORT, parent=tiny_parent)
    assert not (home / "training").exists()
    with pytest.raises(OSError, match=r"choose one on another disk with --out"):
        prepare(source, SHORT, parent=tiny_parent, out=home / "mine")


def test_preparing_can_be_ended_and_leaves_nothing(source, tiny_parent, home):
    class EndedError(Exception):
        pass

    def end(done, total):
        assert total == 12
        if done == 3:
            raise EndedError

    with pytest.raises(EndedError):
        prepare(source, SHORT, parent=tiny_parent, told=end)
    assert not (home / "training").exists()


def test_what_a_killed_preparation_left_is_removed_by_the_next_one(source, tiny_parent):
    left = user_jobs() / ".disks.1-01234567.making"
    left.mkdir(parents=True)
    (left / "pack.safetensors").touch()
    prepare(source, SHORT, parent=tiny_parent)
    assert [path.name for path in user_jobs().iterdir()] == ["disks"]


def test_labels_that_change_meanwhile_are_told(disks, tiny_parent):
    image, labels = disks(4)
    source = ArraySource(image, labels)
    found = survey(source)
    labels[:] = 0
    with pytest.raises(ValueError, match="was changed while it was read"):
        prepare(source, SHORT, parent=tiny_parent, found=found)


# ---------------------------------------------------------------- training


def test_fine_tuning_raises_the_score_and_keeps_a_model_with_its_provenance(source, tiny_parent):
    calibration = Calibration(FITTED, (0.0,) * 4, (1.0,) * 4, (0.5, 0.1, -0.1, 0.0), -3.0)
    save_model(tiny_parent, load_model(tiny_parent).model, {"licence": "CC0", "confidence": calibration.to_card()})
    first, *_, last = run(prepare(source, FAST, parent=tiny_parent))
    assert first.now == first.before == last.before
    outcome = last.outcome
    assert outcome is not None
    assert outcome.improved
    assert outcome.after.mean_iou > first.before.mean_iou + 0.1
    assert outcome.model == "disks"
    assert "'disks' is better than 'tiny-parent': IoU" in outcome.sentences[0]
    assert "95 % interval" in outcome.sentences[1]
    card = load_model("disks").card
    assert card["parent"] == "tiny-parent"
    assert card["licence"] == "CC0"
    assert card["validation"]["after"]["miou"] == pytest.approx(outcome.after.mean_iou)
    assert card["validation"]["gain"]["objects"] == 4
    assert card["fine_tune"]["steps"] == FAST.steps
    fitted = Calibration.from_card(card)
    assert fitted is not None
    assert replace(fitted, bias=-3.0) == calibration
    assert fitted.bias > -3.0  # the parent's was far too low for these
    assert {"torch", "napari-delse", "python"} <= set(card["versions"])
    assert card["data"]["objects"] == 12
    assert len(card["data"]["fingerprint"]) == 24
    assert card["date"].startswith("20")
    job = open_job(last.folder)
    assert job.state == "finished"
    assert {p.name for p in job.folder.iterdir()} == {
        "job.json", "held_out.safetensors", "history.csv", "lock", "result.json", "state.json", "strip.safetensors"
    }  # fmt: skip
    assert next(run(job)).outcome == outcome


@pytest.fixture
def all_better(monkeypatch):
    """Every checkpoint counts as better."""
    for module in ("run", "result"):
        monkeypatch.setattr(f"napari_delse.finetuning.{module}.better", lambda *_: True)


def test_versions_never_overwrite(source, tiny_parent, all_better):
    for seed, name in ((0, "disks"), (1, "disks-2")):
        *_, last = run(prepare(source, replace(SHORT, seed=seed), parent=tiny_parent))
        assert last.outcome is not None
        assert last.outcome.model == name
    assert {"disks", "disks-2"} <= set(available_models())


def test_a_model_whose_result_could_not_be_written_is_kept_once(job, all_better, monkeypatch):
    from napari_delse.finetuning import result

    with monkeypatch.context() as patch:

        def full(path, content):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        patch.setattr(result, "write_json", full)
        for end in (lambda: list(run(job)), lambda: finish(job)):
            with pytest.raises(OSError, match="No space left"):
                end()
    assert finish(job).model == "disks"
    assert set(available_models()) == {"default", "disks"}


def test_with_out_the_model_goes_there(source, tiny_parent, tmp_path, all_better):
    *_, last = run(prepare(source, SHORT, parent=tiny_parent, out=tmp_path / "mine"))
    assert last.outcome is not None
    assert last.outcome.path == str(tmp_path / "mine")
    assert load_model(tmp_path / "mine").card["parent"] == "tiny-parent"
    assert "mine" not in available_models()


@pytest.mark.parametrize("steps", [4, 1])
def test_a_gain_that_is_the_best_of_several_checkpoints_is_told_as_such(source, tiny_parent, all_better, steps):
    *_, last = run(prepare(source, replace(SHORT, steps=steps), parent=tiny_parent))
    told = "It is the best of 4 checkpoints on these very objects, so expect somewhat less on new ones."
    assert (told in last.outcome.sentences) == (steps == 4)
    assert last.outcome.checkpoints == steps


@pytest.mark.parametrize(
    ("last", "steps", "objects", "why"),
    [
        (0.4, 500, 40, "lost on the others: label more images"),
        (0.5, 10, 40, "trained for 10 steps only: give it more time"),
        (0.5, 500, 3, "3 objects are few to learn from"),
        (0.5, 500, 40, "Hardly anything changed: train longer"),
    ],
)
def test_a_model_that_is_not_better_is_not_kept_and_the_reason_is_told(last, steps, objects, why):
    from napari_delse.finetuning.config import Gain
    from napari_delse.finetuning.result import Outcome, verdict

    before, now = (ScoredObjects((v,) * 6, (v,) * 6) for v in (0.5, last))
    outcome = Outcome(False, "", "", before, before, now, Gain.between(before, now), (), steps, 9.0, 8, "default", "")
    text = " ".join(verdict(outcome, objects))
    assert "'default' stays: IoU 0.500 before" in text
    assert why in text


def test_a_worse_model_is_not_among_the_users(source, tiny_parent):
    *_, last = run(prepare(source, replace(SHORT, learning_rate=1e-12), parent=tiny_parent))
    assert last.outcome is not None
    if not last.outcome.improved:
        assert last.outcome.model == ""
        assert set(available_models()) == {"default"}
    assert last.best.mean_iou >= last.before.mean_iou


def test_stopped_anywhere_it_goes_on_with_the_best_so_far(job):
    stopped = list(islice(run(job), 3))
    assert job.state == "paused"
    again = run(job)
    first = next(again)
    assert first.best == stopped[-1].best
    assert first.step == stopped[-1].step
    *_, last = again
    assert last.done
    steps = [row["step"] for row in job.history()]
    assert steps == [0, 1, 2, 3, 4]


def test_minutes_count_over_resumptions(source, tiny_parent):
    job = prepare(source, replace(FAST, steps=None, minutes=0.03), parent=tiny_parent)
    seconds = [p.seconds for p in islice(run(job), 4)]
    resumed = next(run(job))
    assert resumed.seconds == pytest.approx(seconds[-1])
    assert resumed.fraction == pytest.approx(seconds[-1] / 1.8)
    assert resumed.remaining < 1.8


def test_history_and_strip_are_there_for_curves_and_pictures(job):
    for progress in islice(run(job), 3):
        assert progress.scored
    rows = job.history()
    assert rows[0] == {"step": 0, "seconds": 0, "fraction": 0, "iou": rows[0]["iou"], "f_2px": rows[0]["f_2px"]}
    assert {"loss", "loss_final", "iou", "f_2px", "seconds"} <= set(rows[-1])
    strip = job.strip()
    assert strip is not None
    assert len(strip.names) == 4


def test_out_of_memory_halves_the_batch_and_says_so(job, monkeypatch):
    from napari_delse.train import loop

    real, tried = loop.training_losses, []

    def short_of_memory(model, batch, *args, **kwargs):
        tried.append(len(batch.mask))
        if len(batch.mask) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, batch, *args, **kwargs)

    monkeypatch.setattr(loop, "training_losses", short_of_memory)
    seen = list(run(job))
    assert tried[:3] == [8, 4, 2]
    assert [p.batch_size for p in seen][-1] == 2
    notes = [p.note for p in seen if p.note]
    assert "ran out of memory with 8 objects per step, so it goes on with 4" in notes[0]
    assert "with 4 objects per step, so it goes on with 2" in notes[1]
    assert seen[-1].step == SHORT.steps


def test_a_batch_that_was_halved_stays_so_after_a_resumption(job, monkeypatch):
    state = {"calls": 0}
    from napari_delse.train import loop

    real = loop.training_losses

    def once(model, batch, *args, **kwargs):
        state["calls"] += 1
        if state["calls"] == 2:
            raise MemoryError
        return real(model, batch, *args, **kwargs)

    monkeypatch.setattr(loop, "training_losses", once)
    assert [p.batch_size for p in islice(run(job), 4)] == [8, 8, 4, 4]
    assert next(run(job)).batch_size == 4
    *_, last = run(job)
    assert last.done


def test_a_batch_that_was_halved_is_so_on_every_process(job, monkeypatch):
    next(run(job))
    stored = json.loads((job.folder / "state.json").read_text())
    (job.folder / "state.json").write_text(json.dumps({**stored, "batch_size": 4}))
    seen = []
    monkeypatch.setattr(
        "napari_delse.finetuning.run.fit", lambda model, pack, config, *_, **__: seen.append(config) or iter(())
    )
    assert list(run(job, world=World(rank=1, size=2))) == []
    assert [config.batch_size for config in seen] == [4]


def test_other_errors_are_raised(job, monkeypatch):
    monkeypatch.setattr(
        "napari_delse.finetuning.run.fit", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("broken"))
    )
    with pytest.raises(RuntimeError, match="broken"):
        list(run(job))


def test_patience_ends_a_run_that_does_not_improve(source, tiny_parent, monkeypatch):
    monkeypatch.setattr("napari_delse.finetuning.run.better", lambda *_: False)
    job = prepare(source, replace(SHORT, steps=50, patience=3), parent=tiny_parent)
    seen = list(run(job))
    assert seen[-1].step == 3
    assert seen[-1].note == "It did not become better for 3 checkpoints, so it ended."
    assert seen[-1].done


def test_finish_keeps_the_best_so_far(source, tiny_parent):
    job = prepare(source, replace(SHORT, steps=50, learning_rate=5e-3), parent=tiny_parent)
    list(islice(run(job), 12))
    outcome = finish(job)
    assert open_job(job.folder).state == "finished"
    assert outcome.after.mean_iou >= outcome.before.mean_iou
    assert finish(job) == outcome


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_without_a_checkpoint_is_not_ended_but_goes_on(job, begun):
    if begun:
        list(islice(run(job), 1))
    with pytest.raises(ValueError, match=r"'disks' has no checkpoint yet, .*; go on with it, or discard it"):
        finish(job)
    *_, last = run(job)
    assert last.step == SHORT.steps


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_final_weights_whose_scoring_was_interrupted_are_scored_before_the_verdict(job, all_better, monkeypatch, error):
    from napari_delse.finetuning import run as module

    real, scored = module.evaluate, []

    def interrupted(*args):
        scored.append(args)
        if len(scored) == 1 + SHORT.steps:  # the parent was first
            raise error
        return real(*args)

    monkeypatch.setattr(module, "evaluate", interrupted)
    with suppress(KeyboardInterrupt):
        list(run(job))
    *_, last = run(job)
    assert load_model(last.outcome.path).card["steps"] == SHORT.steps


def test_two_processes_cannot_train_one_job(job):
    with locked(job.folder):
        assert job.state == "running"
        with pytest.raises(ValueError, match="is being trained by another process"):
            next(run(job))
        with pytest.raises(ValueError, match="is running; stop it first"):
            delete_job(job)
    delete_job(job)
    assert list_jobs() == []


def test_a_job_of_another_version_is_left_out_and_said_to_be(job):
    said = []
    assert list_jobs(said) == [job]
    assert said == []
    stored = (job.folder / "job.json").read_text(encoding="utf-8")
    (job.folder / "job.json").write_text(stored.replace('"format": ', '"format": 9'), encoding="utf-8")
    assert list_jobs(said) == []
    (error,) = said
    assert str(error).startswith(f"{job.folder} cannot be read as a training (it comes from another version")
    (job.folder / "result.json").write_text('{"model": ""}', encoding="utf-8")  # that one had ended
    assert list_jobs(said) == []
    assert said == [error]


def test_the_bias_of_a_calibration_moves_the_further_the_more_objects_say_so():
    calibration = Calibration(("expected_iou",), (0.0,), (1.0,), (1.0,), 0.0)
    rows = np.zeros((40, 1))
    few, many = (calibration.shifted(rows[:n], np.full(n, 0.9)) for n in (2, 40))
    assert 0.5 < few.scores(rows[:1])[0] < many.scores(rows[:1])[0] < 0.9
    assert calibration.shifted(np.full((3, 1), np.nan), np.zeros(3)) == calibration


def test_progress_and_outcome_survive_json(job):
    from napari_delse.finetuning.run import JobProgress

    first, *_, last = run(job)
    for progress in (first, last):
        again = JobProgress.from_json(json.loads(json.dumps(progress.to_json())))
        assert repr(again) == repr(progress)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("spoil", [cut, lambda file: file.write_bytes(b"")], ids=["half", "empty"])
def test_after_a_damaged_checkpoint_it_begins_anew_with_the_best_model(job, all_better, spoil, monkeypatch):
    from napari_delse.finetuning import run as module

    begun_with = []
    real = module.load_model
    monkeypatch.setattr(module, "load_model", lambda folder: (begun_with.append(Path(folder).name), real(folder))[1])
    *_, last = islice(run(job), 3)
    spoil(job.folder / "fit" / "resume.safetensors")
    begun_with.clear()
    again = run(job)
    first = next(again)
    assert "The last checkpoint was damaged" in first.note
    assert (first.step, first.best) == (0, last.best)
    *_, end = again
    assert begun_with[:2] == ["parent", "best-2"]
    assert end.step == SHORT.steps
    assert [row["step"] for row in job.history()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("content", [None, "", "null", "{}", '{"before": 3}'])
def test_damaged_scores_are_made_anew(job, content):
    stopped = list(islice(run(job), 3))
    file = job.folder / "state.json"
    cut(file) if content is None else file.write_text(content)
    again = run(job)
    first = next(again)
    assert first.note == "The scores so far were damaged, so the model is scored anew."
    assert (first.step, first.before) == (2, stopped[-1].before)
    *_, last = again
    assert last.done


@pytest.mark.parametrize("content", [b"\xff\xfe\xff", b"\0" * 100, b""], ids=["no text", "zeros", "empty"])
def test_damaged_curves_keep_nobody_from_training(job, content):
    list(islice(run(job), 3))
    for file in ("history.csv", "strip.safetensors", "fit/log.csv"):
        (job.folder / file).write_bytes(content)
    assert job.history() == []
    assert job.strip() is None
    *_, last = run(job)
    assert last.done
    assert [row["step"] for row in job.history()][-2:] == [3, 4]


@pytest.mark.parametrize("content", ["", "{", "null"])
def test_a_result_that_was_cut_off_is_none(job, content):
    list(islice(run(job), 2))
    (job.folder / "result.json").write_text(content)
    assert job.state == "paused"
    *_, last = run(job)
    assert last.done
    assert job.state == "finished"
    (job.folder / "result.json").write_text(content)
    with pytest.raises(ValueError, match=r"has ended, but result\.json there is damaged; .* can be discarded"):
        next(run(job))


@pytest.mark.parametrize("content", [None, "{", '{"format": 7}', "[]", "null", '"a"', '{"format": 1, "created": 5}'])
def test_what_is_no_job_is_told(tmp_path, content):
    folder = tmp_path / "job"
    folder.mkdir()
    if content is not None:
        (folder / "job.json").write_text(content)
    with pytest.raises(ValueError, match=r"is no training|cannot be read as a training"):
        open_job(folder)


def test_samples_that_were_read_already_can_be_trained_on(disks, tiny_parent):
    source = SampleSource(list(split_planes("disks", *disks(4))))
    assert prepare(source, SHORT, parent=tiny_parent).objects == 12
    assert Path(prepare(source, SHORT, parent=tiny_parent).folder).name == "samples"


def test_one_call_goes_from_arrays_or_files_to_a_verdict(disks, tiny_parent, tmp_path):
    image, labels = disks(4)
    settings = {"parent": tiny_parent, "steps": 2, "replay": 0, "name": "quick"}
    outcome = fine_tune(image, labels, **settings)
    assert outcome.sentences
    assert open_job("quick").objects == 12
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", labels, photometric="minisblack")
    assert fine_tune(tmp_path / "a.tif", tmp_path / "b.tif", **settings).before == outcome.before
    with pytest.raises(ValueError, match="both be paths or both be arrays"):
        fine_tune(image, tmp_path / "b.tif")
    with pytest.raises(ValueError, match="unknown key 'minuets'"):
        fine_tune(image, labels, minuets=3)


@pytest.mark.parametrize(("asked", "size"), [(32, 32), (None, 64), (512, 64)])
def test_the_new_model_has_the_size_asked_for_but_is_never_larger_than_its_parent(source, tiny_parent, asked, size):
    *_, last = run(prepare(source, replace(FAST, size=asked), parent=tiny_parent))
    assert last.outcome.improved
    assert load_model(last.outcome.path).config.crop.size == size
