"""The training of the nano checkpoint learns, goes on as if it had never stopped, and leaves models that play."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acestep_graph.acestep_core import codec
from acestep_graph.acestep_core.checkpoints import catalog, loading
from acestep_graph.acestep_core.checkpoints.contents import components_in
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lm import grammar, prompts, think
from acestep_graph.acestep_core.lm.vocabulary import vocabulary_of
from acestep_graph.acestep_core.models.acestep import AceStepModel
from acestep_graph.acestep_core.models.qwen3 import Qwen3
from acestep_graph.acestep_core.sampling import sampler
from acestep_graph.acestep_core.song import make_song
from acestep_graph.acestep_core.tasks import codes as code_tasks
from acestep_graph.acestep_core.tasks import complete, extract, lego, remix, repaint, text2music
from acestep_graph.acestep_core.tasks.source import encode_source
from acestep_graph.acestep_core.tokenizer import AUDIO_CODE
from nano import coded, codes, diffusion, planner, songs, sound
from nano.conditions import SHARES, make_row
from nano.muon import orthogonal
from nano.pool import Pool
from nano.run import LOG, Budget, Setup, noise_of, train
from nano.sizes import NANO, TINY
from nano.train import Further, Run, main

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """All stages, a few steps each, at the smallest sizes."""
    pool = Pool(0, seconds=5.0, slots=2, every=1000, workers=0)
    setup = Setup(tmp_path_factory.mktemp("run"), CPU, seed=10, workers=0, quiet=True)
    made = Run(TINY, setup, rows=2, most_songs=3, least_songs=3, pool=pool)
    stages = {"vae": 4, "songs": 0, "tokenizer": 40, "dit": 25, "turbo": 3, "codes": 0, "lm": 30}
    for stage, steps in stages.items():
        made.stage(stage, Budget(0.0, steps))
    return made


@pytest.fixture(scope="module")
def made(run) -> list[songs.Cached]:
    return songs.load_songs(run.setup)


@pytest.fixture(scope="module")
def models(run):
    return run.export(run.setup.out / "models")


def loss(losses) -> float:
    return float(losses["loss"].detach())


def test_the_autoencoder_begins_as_a_linear_codec_and_gets_better(run):
    hop = TINY.vae.hop
    heard = torch.from_numpy(run.pool.crops(0, 4, 26 * hop, np.random.default_rng(1)))
    noise = torch.randn(4, 64, 26, generator=torch.Generator().manual_seed(0))
    plain, linear, trained = (sound.make_vae(TINY.vae, run.setup.seed) for _ in range(3))
    sound.start_linear(linear, heard)
    start = sound.make_vae(TINY.vae, run.setup.seed)
    first = run.pool.crops(0, sound.FIRST_CROPS, 26 * hop, sound.draw(run.setup.seed, f"{sound.STAGE} start", 0))
    sound.start_linear(start, torch.from_numpy(first))
    trained.load_state_dict(torch.load(run.setup.place("vae") / "checkpoint.pt", weights_only=True)["model"])
    with torch.no_grad():
        before, begun, after = (loss(sound.losses_of(vae, heard, noise, fine=False)) for vae in (plain, start, trained))
        error = (heard - sound.decoded(linear.decoder, sound.encoded(linear.encoder, heard, False)[0], False)).square()
    assert begun < 0.9 * before
    assert after < begun
    assert error.mean() < 0.5 * heard.square().mean()


def test_latents_have_mean_0_and_variance_1_and_decode_to_the_same_sound(run):
    heard = torch.from_numpy(run.pool.crops(0, 6, 100 * TINY.vae.hop, np.random.default_rng(3)))
    plain = sound.OobleckVAE(TINY.vae)
    plain.load_state_dict(torch.load(run.setup.place("vae") / "checkpoint.pt", weights_only=True)["model"])
    before, _ = plain.encode(heard)
    sounds = plain.decode(before)
    vae = sound.standardised(plain.requires_grad_(False), heard)
    mean, spread = vae.encode(heard)
    assert float(mean.mean(dim=(0, 2)).abs().max()) < 1e-3
    variance = mean.var(dim=(0, 2)) + spread.square().mean(dim=(0, 2))
    assert float(mean.var(dim=(0, 2)).max()) < 1.05
    assert float(variance.max()) < 1.5
    inner = slice(20 * TINY.vae.hop, -20 * TINY.vae.hop)
    assert torch.allclose(vae.decode(mean)[..., inner], sounds[..., inner], atol=1e-4)


def test_codes_carry_something(run, made):
    latents, wanted = codes.groups_of(made, 5)
    with torch.no_grad():
        losses = codes.losses_of(run.coder(), latents, wanted)
    assert float(losses["beat"]) < 0.8 * float(wanted.mean(-1).square().mean())
    written = codes.codes_of(run.coder(), made[0].mix)
    assert len(written) == math.ceil(made[0].frames / 5)
    assert 0 <= int(written.min()) <= int(written.max()) < run.coder().tokenizer.quantizer.codebook_size


def test_the_diffusion_model_gets_better(run):
    examples = run.examples()
    batch = examples.batch(np.random.default_rng(5))
    with torch.no_grad():
        start, end = (
            loss(diffusion.losses_of(maker, batch, examples.silence, torch.Generator().manual_seed(1)))
            for maker in (run.maker(), run.trained_maker())
        )
    assert end < 0.97 * start


def test_turbo_learns_from_its_teacher(run):
    examples, teacher = run.examples(), run.trained_maker()
    student = AceStepModel(TINY.dit)
    student.load_state_dict(torch.load(run.setup.place("turbo") / "checkpoint.pt", weights_only=True)["model"])
    assert any(not torch.equal(a, b) for a, b in zip(student.parameters(), teacher.dit.parameters(), strict=True))
    batch = examples.batch(np.random.default_rng(6), ("text2music",))
    with torch.no_grad():
        losses = diffusion.distil_losses(student, teacher, batch, examples.silence, np.random.default_rng(7))
    assert math.isfinite(loss(losses))


def test_songs_as_codes_are_others_and_as_many_as_were_asked_for(run, made):
    coded_songs = coded.load_coded(run.setup)
    assert len(coded_songs) == 3 and len(run.known()) == 3 + len(made)
    for one in coded_songs:
        assert len(one.codes) == math.ceil(one.song.duration * 25 / 5)
        assert 0 <= min(one.codes) <= max(one.codes) < math.prod(TINY.dit.fsq_input_levels)
    assert not {one.captions for one in coded_songs} & {song.captions for song in made}
    again = Setup(run.setup.out, CPU, seed=10, workers=1, quiet=True)
    written = {path: path.read_bytes() for path in songs.song_files(again.place("codes"))}
    max(written).unlink()
    coded.make_coded(run.vae(), run.coder(), TINY.dit, again, minutes=0.0, most=3, least=3)
    assert {path: path.read_bytes() for path in songs.song_files(again.place("codes"))} == written


def test_songs_that_other_codes_were_made_of_are_thrown_away(run, tmp_path):
    setup = Setup(tmp_path, CPU, seed=10, workers=0, quiet=True)
    coders = [run.coder(), codes.Coder(TINY.dit)]
    counts = [
        coded.make_coded(run.vae(), coders[which], TINY.dit, setup, minutes=0.0, most=least, least=least)
        for which, least in ((0, 2), (0, 0), (1, 0))
    ]
    assert counts == [2, 2, 0]


def test_the_planner_gets_better_at_words_and_codes(run):
    model, tokenizer = run.planner(), run.words("lm")
    random = np.random.default_rng(8)
    examples = [planner.make_example(song, task, tokenizer, random) for song in run.known() for task in planner.SHARES]
    with torch.no_grad():
        start = planner.losses_of(model, examples, CPU)
        model.load_state_dict(torch.load(run.setup.place("lm") / "checkpoint.pt", weights_only=True)["model"])
        end = planner.losses_of(model, examples, CPU)
    assert float(end["words"]) < float(start["words"])
    assert float(end["codes"]) < float(start["codes"])


def test_a_code_is_the_sum_of_its_levels_and_what_is_its_own():
    embedding = planner.CodeEmbedding(7, (3, 2, 2), 5)
    for number, parameter in enumerate(embedding.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    low, middle, high = embedding.parts
    code = embedding.common + low[1] + middle[0] + high[1] + embedding.own[1 + 0 * 3 + 1 * 6]
    assert torch.allclose(embedding(torch.tensor([7 + 7, 3])), torch.stack([code, embedding.words.weight[3]]))
    hidden, ids = torch.randn(19, 5, generator=torch.Generator().manual_seed(9)), torch.arange(19)
    whole = torch.log_softmax(hidden @ embedding.rows.T, -1)
    assert torch.allclose(embedding.log_probability(hidden, ids), whole[torch.arange(19), ids], atol=1e-5)
    other = planner.CodeEmbedding(7, (3, 2, 2), 5)
    other.take(embedding.rows)
    assert torch.allclose(other.rows, embedding.rows, atol=1e-6)
    assert 0.1 < float(other.own.detach().norm() / embedding.own.detach().norm()) < 1


@pytest.mark.parametrize("task", SHARES)
def test_rows_are_worded_and_masked_as_the_engine_does(run, made, task):
    examples = run.examples()
    cached = made[0]
    row = make_row(cached, task, examples.silence, examples.tokenizer, np.random.default_rng(2), 750)
    text = examples.tokenizer.decode(row.text)
    mask = row.context[:, 64:]
    source = row.context[:, :64]
    assert text.startswith("# Instruction\n") and row.target.shape == (cached.frames, 64)
    assert f"- duration: {cached.frames // 25} seconds" in text
    assert set(mask.unique().tolist()) <= {0.0, 1.0} and bool((mask == mask[:, :1]).all())
    mix = cached.mix.float()
    if task == "text2music":
        assert torch.equal(source, examples.silence[: cached.frames]) and torch.equal(row.target, mix)
    elif task.startswith("cover"):
        assert torch.equal(source, mix) and row.hints == (task == "cover")
    elif task == "repaint":
        inside = mask[:, 0] == 1
        assert torch.equal(source[~inside], mix[~inside]) and 0 < int(inside.sum()) < cached.frames
        assert torch.equal(source[inside], examples.silence[: cached.frames][inside])
    elif task == "extract":
        assert torch.equal(source, mix) and "Extract the" in text
        assert any(torch.equal(row.target, stem.float()) for stem in cached.stems.values())
    elif task == "lego":
        assert "Generate the" in text and any(torch.equal(source, rest.float()) for rest in cached.rests.values())
    else:
        assert "Complete the input track" in text and torch.equal(row.target, mix)


def test_words_are_found_among_the_tokens_of_the_lyrics(run, made):
    examples = run.examples()
    sung = [song for song in made if song.words]
    assert sung
    for cached in sung:
        random = np.random.default_rng(4)
        row = make_row(cached, "text2music", examples.silence, examples.tokenizer, random, 750)
        text, start, end = cached.words[len(cached.words) // 2]
        patch = int((start + end) / 2 * 12.5)
        heard = examples.tokenizer.decode(row.lyrics[row.first[patch] : row.last[patch]])
        assert text.lower() in heard.lower()


def test_padding_of_shorter_conditions_is_not_heard(run):
    examples, maker = run.examples(), run.trained_maker()
    batch = examples.batch(np.random.default_rng(11), ("text2music",))
    longer = diffusion.Batch(
        **{
            **vars(batch),
            "text": torch.nn.functional.pad(batch.text, (0, 9)),
            "text_mask": torch.nn.functional.pad(batch.text_mask, (0, 9)),
        }
    )
    flows = []
    with torch.no_grad():
        for one in (batch, longer):
            known = diffusion.heard(maker, one)
            call = diffusion.Watched(maker.dit.decoder, known.bias, {})
            t = torch.full((len(one.target),), 0.5)
            flows.append(diffusion.velocity(maker.dit, one.target, one.context, known.sequence, call, t))
    assert torch.allclose(*flows, atol=1e-5)


def test_the_training_pass_is_what_the_engine_plays(run):
    """One row without padding: the engine's own forward answers the same."""
    examples, maker = run.examples(), run.trained_maker()
    random, silence = np.random.default_rng(0), examples.silence
    row = make_row(examples.songs[0], "cover-nofsq", silence, examples.tokenizer, random, 750)
    batch = diffusion.collate([row], silence, 750)
    t = torch.tensor([0.7])
    with torch.no_grad():
        known = diffusion.heard(maker, batch)
        call = diffusion.Watched(maker.dit.decoder, known.bias, {3: (0,)})
        ours = diffusion.velocity(maker.dit, batch.target, batch.context, known.sequence, call, t)
        theirs = maker.dit.decoder(batch.target, batch.context, known.sequence, t)
        ready = maker.dit.decoder.begin(batch.context, known.sequence)
        levels = maker.dit.decoder.levels(t, ready)
        looked = maker.dit.decoder.listening(batch.target, levels, ready, {3: (0,)}, slice(0, None))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(call.seen[0], looked[0], atol=1e-5)


@pytest.mark.parametrize("shape", ((3, 20, 45), (2, 45, 20), (1, 16, 16)))
def test_muon_keeps_directions_and_makes_them_equally_strong(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    made = orthogonal(given)
    strengths = torch.linalg.svdvals(made)
    assert strengths.min() > 0.3 and strengths.max() < 1.3
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    turned = left.mT @ made @ right.mT
    assert torch.allclose(turned, torch.diag_embed(turned.diagonal(0, 1, 2)), atol=1e-3)


@pytest.mark.parametrize("muon", (False, True))
def test_a_stopped_training_ends_where_an_unbroken_one_does(tmp_path, muon):
    def trained(name: str, stop_at: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        model = torch.nn.ModuleDict({"layers": layers})
        setup = Setup(tmp_path / name, CPU, quiet=True)

        def step_of(step, share):
            if step == stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            x = torch.randn(16, 4, generator=noise_of(sound.draw(0, "toy", step)))
            return {"loss": (layers(x)[:, 0] - x.sum(1)).square().mean()}

        train("toy", model, step_of, Budget(0, 12), setup, rate=1e-2, warmup=3, muon=muon)
        return {name: value.clone() for name, value in model.state_dict().items()}

    whole = trained("whole", None)
    with pytest.raises(KeyboardInterrupt):
        trained("broken", 5)
    resumed = trained("broken", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    rows = list(csv.DictReader((tmp_path / "broken" / "toy" / LOG).open()))
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


STOPPED = """
import sys
from pathlib import Path
import torch
from nano import songs
from nano.run import Setup
from nano.sizes import TINY
from acestep_graph.acestep_core.models.oobleck import OobleckVAE
if __name__ == "__main__":
    setup = Setup(Path(sys.argv[1]), torch.device("cpu"), workers=1, quiet=True)
    songs.make_songs(OobleckVAE(TINY.vae), setup, minutes=9.0, most=1000)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_composing_that_is_stopped_leaves_no_process_behind(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(STOPPED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    going = subprocess.Popen(
        [sys.executable, script, tmp_path], env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not list(tmp_path.glob("songs/[0-9]*.safetensors")):
        assert going.poll() is None and time.monotonic() < until, going.stderr.read()
        time.sleep(0.1)
    going.terminate()
    assert "KeyboardInterrupt" in going.communicate(timeout=120)[1]
    with pytest.raises(ProcessLookupError):
        for _ in range(300):  # Python's own tracker of resources goes a moment later
            os.killpg(going.pid, 0)
            time.sleep(0.1)


def test_what_a_step_hears_follows_from_its_number_alone():
    early, late = (Pool(0, seconds=5.0, slots=2, every=3, workers=0) for _ in range(2))
    for step in range(4):
        early.crops(step, 1, 100, np.random.default_rng(step))
    assert np.array_equal(
        early.crops(4, 2, 4800, np.random.default_rng(9)), late.crops(4, 2, 4800, np.random.default_rng(9))
    )


def test_loss_that_is_no_number_stops_the_training(tmp_path):
    model = torch.nn.Linear(1, 1)
    setup = Setup(tmp_path, CPU, quiet=True)

    def step_of(step, share):
        return {"loss": model.weight.sum() * math.nan}

    with pytest.raises(FloatingPointError, match="lower the rate"):
        train("toy", model, step_of, Budget(0, 3), setup, rate=1e-2, warmup=1)


def test_every_part_is_known_and_loads_without_notes_of_trouble(models):
    for folder, component in (
        ("acestep-v15-turbo", "dit"),
        ("acestep-v15-base", "dit"),
        ("Qwen3-Embedding-0.6B", "text"),
        ("acestep-5Hz-lm-1.7B", "lm"),
    ):
        path = models / folder / "model.safetensors"
        assert components_in(path) == {component}
    assert components_in(models / "vae" / "diffusion_pytorch_model.safetensors") == {"vae"}
    turbo, base = (loading.load_diffusion_model(models / f"acestep-v15-{kind}") for kind in ("turbo", "base"))
    assert (turbo.kind, base.kind) == ("turbo", "base")
    assert turbo.silence is not None and turbo.config == TINY.dit.from_json(vars(turbo.config))
    assert turbo.report.file_dtype == "F16" and not turbo.report.unexpected


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("dit", "acestep_v1.5_turbo.safetensors"),
        ("dit", "acestep-v15-base/model.safetensors"),
        ("text", "qwen_0.6b_ace15.safetensors"),
        ("vae", "ace_1.5_vae.safetensors"),
        ("lm", "qwen_1.7b_ace15.safetensors"),
    ],
)
def test_the_names_in_workflows_find_the_exported_models(models, component, name):
    host = Host(models=models)
    found = catalog.resolve(host, component, name)
    assert found.path.is_relative_to(models)
    assert found.name in catalog.list_choices(host, component)


def test_the_exported_planner_writes_plans_that_parse_and_codes_that_play(models, run):
    lm = loading.load_language_model(models / "acestep-5Hz-lm-1.7B")
    vocabulary = vocabulary_of(lm.tokenizer)
    assert len(vocabulary.codes) == math.prod(TINY.dit.fsq_input_levels)
    assert lm.tokenizer.token_id(AUDIO_CODE.format(3)) == vocabulary.codes[3]
    assert lm.module.config.vocab_size == vocabulary.codes.stop
    assert grammar.block(vocabulary)
    ids = torch.tensor([prompts.encode(lm.tokenizer, prompts.understand_prompt([0, 5, 150]))])
    trained = run.planner()
    trained.load_state_dict(torch.load(run.setup.place("lm") / "checkpoint.pt", weights_only=True)["model"])
    with torch.no_grad():
        assert torch.allclose(lm.module(ids), trained(ids), atol=0.02)
    song = make_song("happy jazz", instrumental=True, bpm=90, key="C major", time_signature="4", duration=10)
    thought = think.think(lm, song, seeds=[1])
    assert len(thought.codes.for_item(0)) == 50


def test_all_tasks_play(models, run):
    turbo, base = (loading.load_diffusion_model(models / f"acestep-v15-{kind}") for kind in ("turbo", "base"))
    text = loading.load_text_encoder(models / "Qwen3-Embedding-0.6B")
    vae = loading.load_vae(models / "vae")
    song = make_song("happy jazz", "[Verse]\nI see the sun", "en", bpm=100, duration=10)
    heard = run.pool.at(0)[0][0].astype(np.float32) / 32767
    source = encode_source(vae, torch.from_numpy(heard))
    parsed = code_tasks.parse_codes(code_tasks.Codes((code_tasks.encode_codes(turbo, source.latents),)).text())
    batches = (
        (turbo, text2music.prepare(turbo, text, song)),
        (turbo, text2music.prepare(turbo, text, song, codes=parsed)),
        (turbo, remix.prepare(turbo, text, song, source)),
        (turbo, repaint.prepare(turbo, text, song, source, 1, 3)),
        (base, extract.prepare(base, text, source, "drums")),
        (base, lego.prepare(base, text, song, source, "bass")),
        (base, complete.prepare(base, text, song, source, ("drums",))),
    )
    for model, batch in batches:
        latents = sampler.sample(model, batch, seed=1).latents
        audio = codec.decode(vae, latents)
        assert audio.shape == (1, 2, latents.shape[1] * 1920)
        assert torch.isfinite(audio).all() and float(audio.std()) > 1e-4


def test_the_shipped_sizes_stay_below_30_megabytes():
    words = 2100
    code_count = math.prod(NANO.dit.fsq_input_levels)
    with torch.device("meta"):
        dit = sum(p.numel() for p in AceStepModel(NANO.dit).parameters())
        vae = sum(p.numel() for p in sound.OobleckVAE(NANO.vae).parameters())
        text = sum(p.numel() for p in Qwen3(replace(NANO.text, vocab_size=words)).parameters())
        lm = sum(p.numel() for p in Qwen3(replace(NANO.lm, vocab_size=words + code_count)).parameters())
    assert 2 * (2 * dit + vae + text + lm) < 28.9e6


def test_trained_further_codes_and_latents_keep_their_meaning(run, models, tmp_path):
    setup = Setup(tmp_path, CPU, seed=11, workers=0, quiet=True)
    further = Further(TINY, setup, rows=2, most_songs=2, least_songs=2, models=models)
    begun = further.maker()
    for name, tensor in run.trained_maker().state_dict().items():
        assert torch.allclose(begun.state_dict()[name], tensor, atol=2e-3), name
    for stage, steps in (("songs", 0), ("dit", 2), ("turbo", 1), ("export", 0)):
        further.stage(stage, Budget(0.0, steps))
    same, changed = [], []
    for path in sorted(path for path in models.rglob("*") if path.is_file()):
        again = tmp_path / "models" / path.relative_to(models)
        (same if again.read_bytes() == path.read_bytes() else changed).append(path)
    assert {path.parent.name for path in changed if path.name == "model.safetensors"} == {
        *("acestep-v15-base", "acestep-v15-turbo", "Qwen3-Embedding-0.6B")
    }
    assert {path.name for path in same} >= {"vocab.json", "merges.txt", "config.json"}
    assert {path.parent.name for path in same} >= {"vae", "acestep-5Hz-lm-1.7B"}
    codings = [loading.load_diffusion_model(place / "acestep-v15-base") for place in (models, tmp_path / "models")]
    latents = songs.load_songs(setup)[0].mix[None].float()
    written = [code_tasks.encode_codes(model, latents) for model in codings]
    assert written[0] == written[1]


def test_a_planner_trained_further_begins_as_it_was_and_is_all_that_changes(run, models, tmp_path):
    setup = Setup(tmp_path, CPU, seed=12, workers=0, quiet=True)
    further = Further(TINY, setup, rows=2, most_songs=2, least_songs=2, models=models)
    ids = torch.tensor([prompts.encode(further.words("lm"), prompts.understand_prompt([0, 5, 150]))])
    trained = run.planner()
    trained.load_state_dict(torch.load(run.setup.place("lm") / "checkpoint.pt", weights_only=True)["model"])
    with torch.inference_mode():
        assert torch.allclose(further.planner()(ids), trained(ids), atol=0.02)
    for stage, steps in (("codes", 0), ("lm", 2), ("export", 0)):
        further.stage(stage, Budget(0.0, steps))
    before, after = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (models, tmp_path / "models")
    )
    assert before.keys() == after.keys()
    assert {path for path in before if before[path] != after[path]} == {Path("acestep-5Hz-lm-1.7B/model.safetensors")}


def test_a_turbo_model_that_its_base_has_left_behind_is_left_out(models, tmp_path):
    setup = Setup(tmp_path, CPU, seed=12, workers=0, quiet=True)
    further = Further(TINY, setup, rows=2, most_songs=2, least_songs=2, models=models)
    for stage, steps in (("songs", 0), ("dit", 1), ("export", 0)):
        further.stage(stage, Budget(0.0, steps))
    assert {path.name for path in (tmp_path / "models").iterdir()} == {
        path.name for path in models.iterdir() if path.name != "acestep-v15-turbo"
    }


@pytest.mark.parametrize(
    ("stage", "models", "said"),
    [
        ("vae", ".", "allowed are songs, dit, turbo, codes, lm, export, all"),
        ("dit", "nowhere", "takes a models folder"),
    ],
)
def test_what_cannot_be_trained_further_is_said(tmp_path, capsys, stage, models, said):
    with pytest.raises(SystemExit):
        main([stage, "--further", str(tmp_path / models), "--out", str(tmp_path), "--device", "cpu"])
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_stage_out_of_order_says_which_comes_first(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["dit", "--minutes", "1", "--out", str(tmp_path), "--sizes", "tiny", "--device", "cpu"])
    assert "stage" in capsys.readouterr().err
