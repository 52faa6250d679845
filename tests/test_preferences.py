"""What is remembered from one time to the next."""

import json
import threading

import pytest

from napari_delse.annotation import preferences
from napari_delse.annotation.policy import LabelPolicy
from napari_delse.annotation.preferences import (
    Preferences,
    change_preferences,
    preferences_file,
    read_preferences,
    write_preferences,
)


def test_what_was_saved_is_read_again(own_home):
    assert read_preferences() == Preferences()
    wanted = Preferences(policy=LabelPolicy(protect=False, fill_holes=True, min_part=12), keys={"accept": "Q"})
    write_preferences(wanted)
    assert preferences_file() == own_home / "preferences.json"
    assert read_preferences() == wanted
    assert [path.name for path in own_home.iterdir()] == ["preferences.json"]


def test_a_failed_write_leaves_the_former_file(own_home):
    write_preferences(Preferences(keys={"accept": "Q"}))
    with pytest.raises(TypeError):
        write_preferences(Preferences(keys={"accept": object()}))
    assert read_preferences().keys == {"accept": "Q"}
    assert [path.name for path in own_home.iterdir()] == ["preferences.json"]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"policy": 3}',
        '{"policy": {"min_part": -1}}',
        '{"policy": {"min_part": "4"}}',
        '{"policy": {"protect": 1}}',
        '{"policy": {"colour": "red"}}',
        '{"keys": ["Q"]}',
        '{"keys": {"accept": 3}}',
    ],
)
def test_other_content_is_refused_with_the_name_of_the_file(own_home, content):
    own_home.mkdir()
    preferences_file().write_text(content)
    with pytest.raises(ValueError, match=r"preferences\.json cannot be read .*defaults are used"):
        read_preferences()


def test_missing_parts_are_the_defaults(own_home):
    own_home.mkdir()
    preferences_file().write_text(json.dumps({"policy": {"fill_holes": True}}))
    assert read_preferences() == Preferences(policy=LabelPolicy(fill_holes=True))


def test_a_change_replaces_what_cannot_be_read(own_home):
    own_home.mkdir()
    preferences_file().write_text('{"policy": {"colour": "red"}, "model": "mine"}')
    change_preferences(keys={"accept": "Q"})
    assert read_preferences() == Preferences(keys={"accept": "Q"})


def test_of_two_changes_at_once_none_is_lost(own_home, monkeypatch):
    second = threading.Thread(target=lambda: change_preferences(keys={"accept": "Q"}))
    real = preferences.write_preferences

    def write(wanted):
        if not second.ident:
            second.start()  # after the first change read the file
            second.join(0.2)
        real(wanted)

    monkeypatch.setattr(preferences, "write_preferences", write)
    change_preferences(model="mine")
    second.join()
    assert read_preferences() == Preferences(keys={"accept": "Q"}, model="mine")
