"""The same weights in every published layout: equal tensors, equal sound, and a report that says what was read."""

import hashlib
import shutil
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from acestep_graph.acestep_core import codec, tokenizer
from acestep_graph.acestep_core.checkpoints import loading
from acestep_graph.acestep_core.checkpoints.folder import kind_of
from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.sampling import sampler
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.acestep_core.song import Song
from acestep_graph.acestep_core.tasks import text2music
from tests.checkpoints import layouts

ORIGINAL = {
    **{f"original, {form}": partial(layouts.original, form=form) for form in layouts.FORMS},
    "original, model. before the names": partial(layouts.original, prefix="model."),
    "original, silence as safetensors": partial(layouts.original, silence="safetensors"),
    "original, no silence": partial(layouts.original, silence="none"),
}
DIFFUSERS = {
    "diffusers": layouts.diffusers,
    "diffusers, sharded": partial(layouts.diffusers, form="sharded"),
    "diffusers, first converter": partial(layouts.diffusers, new_keys=False, codes=False),
    "diffusers, without codes": partial(layouts.diffusers, codes=False),
}
COMFY = {
    "ComfyUI": layouts.comfy,
    "ComfyUI, long prefix": partial(layouts.comfy, prefix="model.diffusion_model.", norm="parametrizations"),
    "ComfyUI, other prefixes": partial(layouts.comfy, prefix="diffusion_model.", text_prefix=""),
    "ComfyUI, model. prefix": partial(layouts.comfy, prefix="model."),
    "ComfyUI all-in-one": layouts.all_in_one,
}


@pytest.fixture(scope="module", autouse=True)
def tokenizers_read_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading.tokenizers, "load", cache(tokenizer.load))
        yield


@cache
def family(xl=False):
    made = layouts.published_like(xl)
    return replace(made, silence=torch.randn(1, 64, 900, generator=torch.Generator().manual_seed(1)))


@cache
def fixture(kind):
    return layouts.fixture(kind)


def load(paths, dtype="file"):
    """Diffusion model, text encoder and autoencoder of what a writer wrote."""
    return (
        loading.load_diffusion_model(paths.dit, dtype=dtype),
        loading.load_text_encoder(paths.text, dtype=dtype),
        loading.load_vae(paths.vae, dtype=dtype),
    )


def music(model, text, vae):
    song = Song("calm piano", "la la", duration=1.0)
    latents = sampler.sample(model, text2music.prepare(model, text, song), SamplerSettings(steps=2), seed=7).latents
    return codec.decode(vae, latents[:, :8])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Models and sound of the plain original folders."""
    models = load(layouts.original(tmp_path_factory.mktemp("reference"), family()))
    return models, music(*models)


def assert_same(module, tensors, absent=()):
    """Every parameter is the tensor of its name, bit by bit; ``absent`` parts are not there."""
    ours = dict(module.named_parameters())
    assert set(ours) == {name for name in tensors if not name.startswith(absent or "\0")}
    assert all(torch.equal(ours[name], tensors[name].view_as(ours[name])) for name in ours)


@pytest.mark.parametrize("layout", [*ORIGINAL, *DIFFUSERS, *COMFY])
def test_every_layout_gives_the_same_tensors_and_the_same_sound(tmp_path, layout, reference):
    paths = {**ORIGINAL, **DIFFUSERS, **COMFY}[layout](tmp_path, family())
    (first, _, first_vae), sound = reference
    model, text, vae = load(paths)
    codes = layout not in ("diffusers, first converter", "diffusers, without codes")
    assert_same(model.module, family().dit.tensors, () if codes else ("tokenizer.", "detokenizer."))
    assert_same(text.module, family().text.tensors)
    assert_same(vae.module, dict(first_vae.module.named_parameters()))

    has_silence = layout in DIFFUSERS or (layout in ORIGINAL and "no silence" not in layout)
    assert model.silence is None if not has_silence else torch.equal(model.silence, first.silence)
    assert model.kind == "turbo" and model.config.separate_encoder is False
    assert torch.equal(music(replace(model, silence=first.silence), text, vae), sound)

    report = model.report
    expected = layout.partition(",")[0]
    assert (report.layout, report.kind, report.file_dtype, report.dtype) == (expected, "turbo", "BF16", "bfloat16")
    assert report.loaded == sum(1 for _ in model.module.parameters()) and report.unexpected == ()
    assert bool(report.missing) == bool(report.notes) == (not codes)
    assert len(report.missing) == len(family().dit.tensors) - report.loaded
    assert all(str(paths.dit) in file for file in report.files) and expected in report.text()
    assert {text.report.layout, vae.report.layout} == {"original" if layout in DIFFUSERS else expected}


@pytest.mark.parametrize("layout", ["original, sharded", "diffusers", "ComfyUI", "ComfyUI, long prefix"])
def test_the_extra_large_model(tmp_path, layout):
    path = {**ORIGINAL, **DIFFUSERS, **COMFY}[layout](tmp_path, family(xl=True)).dit
    model = loading.load_diffusion_model(path, dtype="file")
    assert_same(model.module, family(xl=True).dit.tensors)
    config = model.config
    assert config.separate_encoder and model.module.encoder.timbre_encoder.uses_token
    assert (config.encoder_intermediate_size, config.num_attention_heads, config.encoder_num_attention_heads) == (
        96,
        6,
        4,
    )


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        *((layout, "turbo") for layout in {**ORIGINAL, **DIFFUSERS}),
        *((layout, kind) for layout in ("original, sharded", "diffusers, sharded") for kind in ("base", "xl-turbo")),
    ],
)
def test_the_fixtures_in_every_layout_that_has_a_configuration(tmp_path, layout, kind):
    model, text, vae = load({**ORIGINAL, **DIFFUSERS}[layout](tmp_path, fixture(kind)))
    codes = layout not in ("diffusers, first converter", "diffusers, without codes")
    assert_same(model.module, fixture(kind).dit.tensors, () if codes else ("tokenizer.", "detokenizer."))
    assert_same(text.module, fixture(kind).text.tensors)
    assert model.kind == kind.removeprefix("xl-") and model.config.sliding_window == 4
    assert not codes or model.config.fsq_input_levels == (5, 5, 5, 3)
    assert model.config.separate_encoder == kind.startswith("xl-")
    assert text.tokenizer.vocab_size == 666 and text.tokenizer.end_of_text == 640
    assert vae.dtype == torch.bfloat16 and model.dtype == torch.float32


def test_the_diffusion_model_of_the_fixtures_cannot_be_told_from_shapes_alone(tmp_path):
    paths = layouts.comfy(tmp_path, fixture("turbo"))
    with pytest.raises(CheckpointError, match="quantizer has 4 dimensions.*config.json beside the file") as caught:
        loading.load_diffusion_model(paths.dit)
    assert str(paths.dit) in str(caught.value)
    (paths.dit.parent / "config.json").write_bytes((layouts.FIXTURES / "acestep-v15-turbo/config.json").read_bytes())
    assert loading.load_diffusion_model(paths.dit).config.fsq_input_levels == (5, 5, 5, 3)


def test_a_configuration_in_a_shared_folder_is_nobody_s(tmp_path):
    path = layouts.comfy(tmp_path, family()).text
    (path.parent / "config.json").write_text('{"vocab_size": 5}')
    assert loading.load_text_encoder(path).report.layout == "ComfyUI"


def test_a_tokenizer_in_a_shared_folder_is_nobody_s(tmp_path):
    path = layouts.comfy(tmp_path, family()).text
    shutil.copyfile(layouts.FIXTURES / "Qwen3-Embedding-0.6B/tokenizer.json", path.parent / "tokenizer.json")
    shutil.copyfile(path, path.parent / "another.safetensors")
    assert loading.load_text_encoder(path).tokenizer.end_of_text == 151643


@pytest.mark.parametrize(
    "layout", ["original, safetensors", "original, sharded bin", "original, model. before the names"]
)
def test_language_models(tmp_path, layout):
    path = ORIGINAL[layout](tmp_path, fixture("turbo")).lm
    model = loading.load_language_model(path, dtype="file")
    assert_same(model.module, fixture("turbo").lm.tensors)
    assert model.tokenizer.token_id("<|audio_code_0|>") == 666


@pytest.mark.parametrize("layout", ["ComfyUI", "ComfyUI all-in-one"])
def test_language_models_without_tokenizer_files(tmp_path, layout):
    model = loading.load_language_model(COMFY[layout](tmp_path, family()).lm, dtype="file")
    assert_same(model.module, family().lm.tensors)
    assert model.tokenizer.token_id("<|audio_code_63999|>") == 151669 + 63999
    assert model.report.layout == layout


def test_a_tied_head_is_not_a_surprise(tmp_path):
    part = fixture("turbo").text
    tensors = {f"model.{name}": tensor for name, tensor in part.tensors.items()}
    head = part.tensors["embed_tokens.weight"].clone()
    paths = layouts.original(tmp_path, fixture("turbo"))
    save_file({**tensors, "lm_head.weight": head}, paths.text / "model.safetensors")
    assert loading.load_text_encoder(paths.text).report.unexpected == ()


def test_silence_is_made_where_the_layout_carries_none(tmp_path):
    model, _, vae = load(layouts.comfy(tmp_path, family()), "fp32")
    made = codec.with_silence(model, vae)
    assert model.silence is None and made.silence.shape == (15000, 64) and made.module is model.module
    assert "made by encoding silence" in made.report.text() and model.report.notes == ()


def test_weight_norm_is_folded(tmp_path):
    tensors = fixture("turbo").vae.tensors
    vae = loading.load_vae(layouts.original(tmp_path, fixture("turbo")).vae, dtype="fp32")
    for name in ("decoder.conv1", "decoder.block.0.conv_t1", "encoder.block.4.res_unit2.conv2"):
        g, v = tensors[f"{name}.weight_g"].float(), tensors[f"{name}.weight_v"].float()
        assert torch.allclose(vae.module.get_parameter(f"{name}.weight"), torch._weight_norm(v, g, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "name", "kind"),
    [
        ({"is_turbo": True}, "acestep-v15-base", "turbo"),
        ({"is_turbo": False}, "x", "base"),
        ({"is_turbo": False, "model_version": "turbo"}, "acestep-v15-sft", "sft"),
        ({"is_turbo": False, "model_version": "sft"}, "x", "sft"),
        ({"is_turbo": False, "model_version": "sft"}, "acestep-v15-turbo", "sft"),
        ({"model_version": "turbo"}, "acestep-v15-xl-base", "base"),
        ({"model_version": "base"}, "x", "base"),
        ({}, "acestep_v1.5_xl_sft_bf16.safetensors", "sft"),
        ({}, "ace_step_1.5_turbo_aio.safetensors", "turbo"),
        ({}, "acestep-v15-turbo-shift3/model.safetensors", "turbo"),
        ({}, "acestep-v15-base-sft-fix-inst/model.safetensors", "sft"),
        ({}, "ACE-Step 1.5 turbo/acestep_v1.5_sft.safetensors", "sft"),
        ({"is_turbo": False}, "sft and turbo/acestep_v1.5_base.safetensors", "base"),
        ({}, "baseline/database.safetensors", None),
        ({"model_version": "turbo"}, "x", None),
    ],
)
def test_kinds(tmp_path, config, name, kind):
    path = tmp_path / "models" / name
    path.mkdir(parents=True) if "." not in name.rpartition("/")[2] else None
    assert kind_of(config, path)[0] == (kind or "turbo")
    assert ("choose the kind" in kind_of(config, path)[1]) == (kind is None)


def test_a_guessed_kind_is_said_and_a_given_one_is_taken(tmp_path):
    path = layouts.comfy(tmp_path, replace(family(), name="mine")).dit
    guessed = loading.load_diffusion_model(path)
    assert guessed.is_turbo and "turbo was assumed" in guessed.report.text()
    given = loading.load_diffusion_model(path, kind="sft")
    assert (given.kind, given.report.kind, given.report.notes) == ("sft", "sft", ())
    with pytest.raises(ValueError, match="Unknown kind 'sfft'"):
        loading.load_diffusion_model("nowhere", kind="sfft")


def test_precisions(tmp_path):
    path = layouts.comfy(tmp_path, family()).dit
    for wanted, dtype in [
        *(("auto", torch.float32), ("file", torch.bfloat16), (None, torch.bfloat16)),
        *(("bf16", torch.bfloat16), ("fp16", torch.float16), (torch.float64, torch.float64)),
    ]:
        model = loading.load_diffusion_model(path, dtype=wanted)
        assert {p.dtype for p in model.module.parameters()} == {dtype} and model.report.file_dtype == "BF16"
        assert model.report.dtype == str(dtype).removeprefix("torch.")
        assert all(torch.equal(p, family().dit.tensors[name].to(dtype)) for name, p in model.module.named_parameters())
    with pytest.raises(ValueError, match="Unknown precision 'int4'"):
        loading.load_diffusion_model("nowhere", dtype="int4")


def test_a_file_of_mixed_precision_is_kept_in_the_one_it_mostly_has(tmp_path):
    path = layouts.comfy(tmp_path, family()).dit
    tensors = load_file(path)
    save_file({name: t.float() if "norm" in name else t for name, t in tensors.items()}, path)
    model = loading.load_diffusion_model(path, dtype="file")
    assert {p.dtype for p in model.module.parameters()} == {torch.bfloat16}
    assert model.report.notes == ("The file mixes BF16, F32; all of it is kept as BF16.",)


def test_more_tensors_than_the_model_has_are_reported(tmp_path):
    path = layouts.comfy(tmp_path, family(), prefix="diffusion_model.").dit
    extra = {"diffusion_model.decoder.extra.weight": torch.zeros(2), "step": torch.tensor([3])}
    save_file(load_file(path) | extra, path)
    model = loading.load_diffusion_model(path, dtype="file")
    assert_same(model.module, family().dit.tensors)
    assert model.report.unexpected == ("decoder.extra.weight", "step") and "2 tensors not used" in model.report.text()


def test_music_changes_neither_the_weights_nor_the_file(tmp_path, reference):
    paths = layouts.comfy(tmp_path, family())
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    model, text, vae = load(paths)
    model = replace(model, silence=reference[0][0].silence)
    assert torch.equal(music(model, text, vae), music(model, text, vae))
    assert_same(model.module, family().dit.tensors)
    assert digests == [hashlib.sha256(path.read_bytes()).digest() for path in paths]


def test_the_code_in_a_folder_is_never_read(tmp_path, monkeypatch):
    paths = layouts.original(tmp_path, fixture("turbo"))
    opened, real = [], type(paths.dit).open
    monkeypatch.setattr(type(paths.dit), "open", lambda self, *a, **k: opened.append(self) or real(self, *a, **k))
    assert "auto_map" in (paths.dit / "config.json").read_text()
    loading.load_diffusion_model(paths.dit)
    assert opened and not [path for path in opened if path.suffix == ".py"]
