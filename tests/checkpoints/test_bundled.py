"""The nano model is offered by name, plays where nothing else is, and never gets in the way of real weights."""

import pytest

from acestep_graph.acestep_core.checkpoints import bundled, catalog
from acestep_graph.acestep_core.host import Host, use
from acestep_graph.nodes import loading as nodes
from tests import tiny


@pytest.fixture
def nano(tmp_path, monkeypatch):
    """Empty files in the place of the real ones: names alone are looked at here."""
    folder = (tmp_path / "package" / "models" / "nano").resolve()
    for files in bundled.FILES.values():
        for file in files.values():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
    monkeypatch.setattr(bundled, "FOLDER", folder)
    return folder


@pytest.fixture
def empty(tmp_path):
    return Host(models=tmp_path / "mine")


@pytest.mark.parametrize("component", bundled.FILES)
def test_it_is_offered_by_name_behind_everything_else(nano, empty, component):
    assert catalog.list_choices(empty, component) == list(bundled.FILES[component])
    for name, file in bundled.FILES[component].items():
        found = catalog.resolve(empty, component, name)
        assert found.path == nano / file and not found.substituted_for and not found.note
    tiny.build(empty.models)
    assert not bundled.is_nano(catalog.list_choices(empty, component)[0])
    assert catalog.list_choices(empty, component)[-1] == list(bundled.FILES[component])[-1]


@pytest.mark.parametrize(
    ("component", "asked", "plays"),
    [
        ("dit", "acestep_v1.5_turbo.safetensors", "nano (demo) turbo"),
        ("dit", "acestep-v15-base/model.safetensors", "nano (demo) base"),
        ("dit", "acestep_v1.5_xl_sft_bf16.safetensors", "nano (demo) base"),
        ("dit", "a model of mine.safetensors", "nano (demo) turbo"),
        ("text", "qwen_0.6b_ace15.safetensors", "nano (demo)"),
        ("vae", "ace_1.5_vae.safetensors", "nano (demo)"),
        ("lm", "qwen_4b_ace15.safetensors", "nano (demo)"),
    ],
)
def test_it_plays_where_no_weights_are_and_says_so(nano, empty, component, asked, plays):
    found = catalog.resolve(empty, component, asked)
    assert (found.name, found.substituted_for, found.stands_in) == (plays, asked, True)
    with use(empty):
        path, note = nodes.find_file(component, asked)
    assert path == found.path and asked in note and "acestep-graph download" in note
    assert empty.notes == [note]


def test_real_weights_are_never_mixed_with_it(nano, empty):
    tiny.build(empty.models)
    (empty.models / "vae" / "ace_1.5_vae.safetensors").unlink()
    with pytest.raises(catalog.ModelNotFound, match="nano"):
        catalog.resolve(empty, "vae", "ace_1.5_vae.safetensors")
    assert not catalog.resolve(empty, "dit", "acestep_v1.5_turbo.safetensors").stands_in


def test_a_damaged_file_is_not_passed_over(nano, empty):
    broken = empty.models / "diffusion_models" / "acestep_v1.5_turbo.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a checkpoint")
    for component in bundled.FILES:
        with pytest.raises(catalog.ModelNotFound):
            catalog.resolve(empty, component, "something.safetensors")


def test_where_fetching_is_allowed_the_real_model_is_fetched(nano, empty, monkeypatch):
    fetched = []

    def download(name, host):
        fetched.append(name)
        tiny.build(host.models)

    monkeypatch.setattr("acestep_graph.acestep_core.checkpoints.download.download", download)
    with use(empty):
        path, note = nodes.find_file("dit", "acestep_v1.5_turbo.safetensors", download=True)
    assert fetched == ["acestep-v15-turbo"] and path.is_relative_to(empty.models) and not note


def test_the_folder_itself_does_not_count_as_weights(nano):
    host = Host(models=nano.parent)
    assert not catalog.has_weights(host)
    assert catalog.list_choices(host, "dit") == ["nano (demo) turbo", "nano (demo) base"]


def test_the_list_of_models_names_it(nano, empty):
    assert "nano (demo) turbo, nano (demo) base  (comes with the project" in catalog.describe_models(empty)


def test_an_installation_without_it_says_what_is_missing(empty, tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "nowhere")
    assert catalog.list_choices(empty, "dit") == []
    with pytest.raises(catalog.ModelNotFound, match="download"):
        catalog.resolve(empty, "dit", "acestep_v1.5_turbo.safetensors")


def test_reports_call_it_by_its_name(nano, tmp_path):
    assert bundled.called(nano / "acestep-v15-base" / "model.safetensors") == "nano (demo) base"
    assert bundled.called(tmp_path / "acestep-v15-base" / "model.safetensors") == "acestep-v15-base/model.safetensors"
    assert bundled.called(tmp_path / "acestep_v1.5_turbo.safetensors") == "acestep_v1.5_turbo.safetensors"
