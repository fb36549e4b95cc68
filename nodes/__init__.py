"""The nodes: thin adapters from the canvas to the engine, listed in the order a song is made."""

from . import (
    conditioning,
    dataset,
    examples,
    loading,
    lora,
    mixing,
    planner,
    results,
    sampling,
    song,
    sound,
    source,
    speed,
    system,
    training,
)

NODES: dict[str, tuple[type, str]] = {
    "ACEStepLoadModels": (loading.LoadModels, "Load ACE-Step Models"),
    "ACEStepLoadDiffusionModel": (loading.LoadDiffusionModel, "Load ACE-Step Diffusion Model"),
    "ACEStepLoadTextEncoder": (loading.LoadTextEncoder, "Load ACE-Step Text Encoder"),
    "ACEStepLoadVAE": (loading.LoadVAE, "Load ACE-Step VAE"),
    "ACEStepLoadLanguageModel": (loading.LoadLanguageModel, "Load ACE-Step Language Model"),
    "ACEStepLoadLoRA": (lora.LoadLoRA, "Load LoRA"),
    "ACEStepLoRAStack": (lora.LoRAStack, "LoRA Stack"),
    "ACEStepLoRAInfo": (lora.LoRAInfo, "LoRA Info"),
    "ACEStepCompileModel": (speed.CompileModel, "Compile Model"),
    "ACEStepSystem": (system.System, "System"),
    "ACEStepSong": (song.Song, "Song"),
    "ACEStepEditSong": (song.EditSong, "Edit Song"),
    "ACEStepMergeSongs": (song.MergeSongs, "Merge Songs"),
    "ACEStepSongInfo": (song.SongInfo, "Song Info"),
    "ACEStepRandomSong": (planner.RandomSong, "Random Song"),
    "ACEStepCreateSample": (planner.CreateSample, "Create Sample"),
    "ACEStepFormat": (planner.FormatSong, "Format Song"),
    "ACEStepThink": (planner.Think, "Think"),
    "ACEStepTranscribe": (planner.Transcribe, "Transcribe"),
    "ACEStepPlannerSettings": (planner.PlannerSettings, "Planner Settings"),
    "ACEStepReferenceAudio": (song.ReferenceAudio, "Reference Audio"),
    "ACEStepEncodeSource": (source.EncodeSource, "Encode Source"),
    "ACEStepSourceToCodes": (source.SourceToCodes, "Source to Codes"),
    "ACEStepTextToCodes": (source.TextToCodes, "Text to Codes"),
    "ACEStepCodesToText": (source.CodesToText, "Codes to Text"),
    "ACEStepCodesToLatents": (source.CodesToLatents, "Codes to Latents"),
    "ACEStepSaveCodes": (source.SaveCodes, "Save Codes"),
    "ACEStepLoadCodes": (source.LoadCodes, "Load Codes"),
    "ACEStepLoadLatents": (source.LoadLatents, "Load Latents"),
    "ACEStepText2Music": (conditioning.Text2Music, "Text to Music"),
    "ACEStepRemix": (conditioning.Remix, "Remix"),
    "ACEStepFlowEdit": (conditioning.FlowEdit, "Flow Edit"),
    "ACEStepRepaint": (conditioning.Repaint, "Repaint"),
    "ACEStepExtract": (conditioning.Extract, "Extract"),
    "ACEStepExtractTracks": (conditioning.ExtractTracks, "Extract Tracks"),
    "ACEStepLego": (conditioning.Lego, "Lego"),
    "ACEStepComplete": (conditioning.Complete, "Complete"),
    "ACEStepSampler": (sampling.Sampler, "ACE-Step Sampler"),
    "ACEStepSamplerSettings": (sampling.SamplerSettings, "Sampler Settings"),
    "ACEStepGuidanceSettings": (sampling.GuidanceSettings, "Guidance Settings"),
    "ACEStepVAEDecode": (sound.VAEDecode, "ACE-Step VAE Decode"),
    "ACEStepVAEEncode": (sound.VAEEncode, "ACE-Step VAE Encode"),
    "ACEStepScore": (results.Score, "Score"),
    "ACEStepLyricTiming": (results.LyricTiming, "Lyric Timing"),
    "ACEStepPickBest": (results.PickBest, "Pick Best"),
    "ACEStepSaveResult": (results.SaveResult, "Save Result"),
    "ACEStepLoadResult": (results.LoadResult, "Load Result"),
    "ACEStepResultInfo": (results.ResultInfo, "Result Info"),
    "ACEStepMixStems": (mixing.MixStems, "Mix Stems"),
    "ACEStepExampleAudio": (examples.ExampleAudio, "Example Audio"),
    "ACEStepSaveAudio": (sound.SaveAudio, "ACE-Step Save Audio"),
    "ACEStepPreviewAudio": (sound.PreviewAudio, "ACE-Step Preview Audio"),
    "ACEStepScanSongs": (dataset.ScanSongs, "Scan Songs"),
    "ACEStepLoadDataset": (dataset.LoadDataset, "Load Dataset"),
    "ACEStepDatasetSettings": (dataset.DatasetSettings, "Dataset Settings"),
    "ACEStepAutoLabel": (dataset.AutoLabel, "Auto Label"),
    "ACEStepEditSample": (dataset.EditSample, "Edit Sample"),
    "ACEStepEditDataset": (dataset.EditDataset, "Edit Dataset"),
    "ACEStepPreviewSample": (dataset.PreviewSample, "Preview Sample"),
    "ACEStepSaveDataset": (dataset.SaveDataset, "Save Dataset"),
    "ACEStepPreprocess": (training.Preprocess, "Preprocess Dataset"),
    "ACEStepLoadTensors": (training.LoadTensors, "Load Tensors"),
    "ACEStepTrainingSettings": (training.TrainingSettings, "Training Settings"),
    "ACEStepTrainLoRA": (training.TrainLoRA, "Train LoRA"),
    "ACEStepLoadRun": (training.LoadRun, "Load Run"),
    "ACEStepLossCurve": (training.LossCurve, "Loss Curve"),
    "ACEStepExportLoRA": (training.ExportLoRA, "Export LoRA"),
    "ACEStepUseTrainedLoRA": (training.UseTrainedLoRA, "Use Trained LoRA"),
}
"""Node id → class and title. Ids are written into saved workflows and never change."""

NODE_CLASS_MAPPINGS = {name: cls for name, (cls, _) in NODES.items()}
NODE_DISPLAY_NAME_MAPPINGS = {name: title for name, (_, title) in NODES.items()}


def register_in_comfyui() -> None:
    """Where ComfyUI is running: register the model folder and the routes, and make it the engine's host."""
    try:
        import folder_paths
    except ImportError:
        return
    from .comfy_host import ComfyHost, register_model_folder

    register_model_folder(folder_paths)
    ComfyHost.install()
    _add_routes()


def _add_routes() -> None:
    """The panel's routes; there is no server where another program only lists the nodes."""
    try:
        from server import PromptServer
    except ImportError:
        return
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        from .routes import register

        register(server)
