import time

import pytest

from acestep_graph.acestep_core.save_location import LONGEST_NAME, check_prefix, save_location


def test_numbers_count_on_over_all_suffixes(tmp_path):
    folder = tmp_path / "audio"
    assert save_location(tmp_path, "audio/song") == (folder, "song", 1, "audio")
    for name in ("song_00001_.mp3", "song_00007_.flac", "song_00009x_.flac", "songs_00050_.flac", "song_x.flac"):
        (folder / name).touch()
    assert save_location(tmp_path, "audio/song").counter == 8
    (folder / "take_3_00004_.flac").touch()
    assert save_location(tmp_path, "audio/take_%batch_num%").counter == 5


def test_prefixes_know_the_time(tmp_path):
    now = time.localtime()
    forms = {"%year%-%month%-%day%": "%Y-%m-%d", "x_%date:yyyyMMdd%": "x_%Y%m%d", "%date:yy.M%": None}
    for prefix, form in forms.items():
        expected = time.strftime(form, now) if form else f"{now.tm_year % 100:02}.{now.tm_mon}"
        assert save_location(tmp_path, prefix).name == expected


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/etc/x", "..", "", ".", "a/\0b", "..\\..\\x"])
def test_prefixes_stay_inside(tmp_path, prefix):
    root = tmp_path / "output"
    with pytest.raises(ValueError, match="prefix"):
        save_location(root, prefix)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["x" * 300, "日" * 80])
def test_a_name_that_no_file_can_have_is_known_before_anything_is_made(tmp_path, name):
    with pytest.raises(ValueError, match="too long"):
        check_prefix(tmp_path, f"audio/{name}")
    longest = name[: LONGEST_NAME // len(name[0].encode())]
    check_prefix(tmp_path, f"audio/{longest}")
    (tmp_path / f"{longest}_00001_.latents.safetensors.part").touch()


def test_what_cannot_be_saved_is_known_before_anything_is_made(tmp_path):
    check_prefix(tmp_path / "new", "audio/song")
    assert not list(tmp_path.iterdir())
    for prefix in ("../song", "", "/"):
        with pytest.raises(ValueError, match="outside|names no file"):
            check_prefix(tmp_path, prefix)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="another output folder"):
        check_prefix(tmp_path / "file", "song")
