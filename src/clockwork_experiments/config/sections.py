"""The sections of a resolved configuration, as types; `schema` makes schemas of them.

An entry that a step takes as its own dataclass is that class here, or a subclass with
the keys that are the workflow's affair: no setting is described twice. Loading the
workflow reads the schemas instead, since the classes of steps bring torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from clockwork_diffusion.contract import INPUTS
from clockwork_diffusion.unet import CUTS
from clockwork_experiments.benchmark.methods import METHODS as BENCHMARKED
from clockwork_experiments.config.types import (
    Bounds,
    Guidance,
    Items,
    Level,
    Natural,
    OneOf,
    Path,
    Positive,
    Ref,
    Seed,
    Share,
    Steps,
    Text,
)
from clockwork_experiments.cost.architectures import BACKBONES
from clockwork_experiments.data.datasets import DatasetSpec
from clockwork_experiments.data.edit_sets import EditSetSpec
from clockwork_experiments.data.pair_sets import PairSetSpec
from clockwork_experiments.data.sources import SourceSpec
from clockwork_experiments.generate.tasks import TASKS
from clockwork_experiments.generate.text import SamplerSpec
from clockwork_experiments.generate.translate import SOLVERS
from clockwork_experiments.score.perturbation import PerturbationSpec
from clockwork_experiments.search.evolution import EvolutionSpec
from clockwork_experiments.search.levels import MultiSpec, Threshold
from clockwork_experiments.search.methods import METHODS
from clockwork_experiments.train.backbones import BackboneSpec
from clockwork_experiments.train.distillation import AdaptorSpec
from clockwork_experiments.train.trajectories import TrajectorySpec

Scheduler = Annotated[str, Text(r"dpmpp|dpm|pndm|ddim|heun|[A-Z][A-Za-z0-9]*Scheduler")]
Kind = Annotated[
    str,
    Text(
        r"resnet|unet|unet_light|resnet_extrapolation|resnet_gap|affine|low_rank"
        r"|[a-z_][\w.]*:[A-Z]\w*"
    ),
]
Cut = Annotated[str, OneOf(tuple(CUTS))]
Solver = Annotated[str, OneOf(tuple(SOLVERS))]
Task = Annotated[str, OneOf(tuple(TASKS))]
Split = Annotated[str, OneOf(("train", "validation", "test"))]
Precision = Annotated[str, OneOf(("float16", "float32"))]
Names = Annotated[tuple[Annotated[str, Text()], ...], Items(1, unique=True)]
Counts = Annotated[tuple[Annotated[int, Bounds(2, 1000)], ...], Items(1, unique=True)]
Levels = Annotated[tuple[Level, ...], Items(1, unique=True)]

NARROWED: dict[str, Any] = {
    **{"scheduler": Scheduler, "cut": Cut, "seed": Seed, "batch_size": Positive},
    **{"steps": Positive, "guidance": Guidance, "clock": Positive, "task": Task},
    **{"kept": Positive, "empty_captions": Share, "blind_share": Share},
    **{"epochs": Natural, "subset": Natural, "dtype": Precision, "split": Split},
    **{"lr": Annotated[float, Bounds(above=0)], "warmup": Natural},
    **{"ema": Annotated[float, Bounds(0, below=1)], "levels": Levels, "rows": Levels},
    **{"weight_decay": Annotated[float, Bounds(0)]},
    **{"clip_norm": Annotated[float, Bounds(0)]},
    **{"tolerance": Annotated[float, Bounds(0)], "size": Natural, "count": Positive},
    **{"offset": Natural, "seeds": Positive, "groups": Positive, "verified": Positive},
    **{"redrawn": Natural},
    **{"input_size": Positive, "population": Positive, "parents": Positive},
    **{"mutants": Natural, "crossovers": Natural},
    **{"mutation": Annotated[float, Bounds(above=0, most=1)]},
    "adaptor_steps": Annotated[
        tuple[Annotated[int, Bounds(2, 1000)], ...], Items(1, unique=True)
    ],
    "also_clocks": Counts,
    "rank": Natural,
    "ridge": Annotated[float, Bounds(0)],
    "mask": Annotated[str, Text("1[01]*")],
    "inputs": Annotated[tuple[Annotated[str, OneOf(tuple(INPUTS))], ...], Items(1)],
    "layers": Annotated[tuple[str, ...], Items(1)],
    "alphas": Annotated[tuple[Share, ...], Items(1)],
    "starts": Annotated[tuple[Natural, ...], Items(1)],
    "schedule": Annotated[str, OneOf(("constant", "cosine"))],
    "optimizer": Annotated[str, OneOf(("adam", "adamw"))],
    "backbone": Annotated[str, OneOf(tuple(BACKBONES))],
    "metric": Annotated[
        str,
        OneOf(
            (
                *("psnr_to_teacher", "psnr", "clip", "clip_image", "clip_direction"),
                "frechet",
            )
        ),
    ],
    "at_least": float,
    "at_most": float,
    "revision": Annotated[str, Text("[0-9a-f]{40}")],
    "sha256": Annotated[str, Text("[0-9a-f]{64}")],
    "hub": Annotated[str, Text(r"[\w.-]+/[\w.-]+")],
    "url": Annotated[str, Text("https?://.+")],
    "package": Annotated[str, Text(r"\w+/.*")],
    "path": Path,
    "by_hand": Annotated[str, Text()],
    "remote": Annotated[tuple[str, ...], Items(1)],
    "text": Annotated[str, Text()],
    "TrajectorySpec.source": Annotated[str, OneOf(("unroll", "noised", "inverted"))],
    "SourceFile.size": Annotated[int, Bounds(1, 10**15)],
    "stored": Annotated[str, OneOf(("features", "latents"))],
    "Stage.steps": Natural,
    "AdaptorSpec.kind": Kind,
    "DatasetSpec.source": Annotated[str, OneOf(("scenes", "folder"))],
    "PairSetSpec.source": Annotated[str, OneOf(("scenes", "folder"))],
}
"""The ranges of the settings of steps, by field, or by class and field.

Their classes check the same when a step starts; here it is known before anything runs.
"""


@dataclass(frozen=True)
class Model:
    """A text-to-image model.

    Attributes:
        path: The folder of its pipeline.
        backbone: What its UNet is.
        tokens: Length of a prompt.
        unet: The configuration of its UNet, if that is not the published one.
    """

    path: Path
    backbone: Annotated[str, OneOf(tuple(BACKBONES))]
    tokens: Positive
    unet: Path = ""


@dataclass(frozen=True)
class Pipeline:
    """A model for an image-to-image task: a pipeline of its own.

    Attributes:
        task: What it does.
        path: The folder of its pipeline.
        tokens: Length of a prompt.
        unet: The configuration of its UNet, if that is not the published one.
    """

    task: Task
    path: Path
    tokens: Positive
    unet: Path = ""


@dataclass(frozen=True)
class Steering:
    """A ControlNet, and the model that it steers.

    Attributes:
        task: What it does: ``control``.
        model: The model.
        path: Its folder.
    """

    task: Literal["control"]
    model: Annotated[str, Ref("models")]
    path: Path = ""


@dataclass(frozen=True)
class Clip:
    """A CLIP that scores images.

    Attributes:
        path: Its folder.
        width: Width of its pooled text embedding.
    """

    path: Path
    width: Positive


@dataclass(frozen=True)
class FrechetNet:
    """The network of the Fréchet distance.

    Attributes:
        path: Its folder, or file.
        kind: What it is.
    """

    path: Path
    kind: Annotated[str, OneOf(("mini", "inception", "inception_script"))]


@dataclass(frozen=True)
class LpipsNet:
    """The network of LPIPS.

    Attributes:
        path: Its folder, or file.
        kind: What it is.
    """

    path: Path
    kind: Annotated[str, OneOf(("mini", "alex"))]


@dataclass(frozen=True)
class Folder:
    """A network by its folder.

    Attributes:
        path: The folder.
    """

    path: Path


@dataclass(frozen=True)
class Encoders:
    """The networks that score images.

    Attributes:
        clip: CLIP; adaptors and prompts use its text tower, too.
        frechet: The Fréchet distance's.
        clip_translations: CLIP that scores translations, if it is another.
        lpips: LPIPS's.
        structure: The ViT whose keys tell the structure of an image.
        judge: What tells whether a scene is as captioned, and hangs together.
        aesthetic: A linear aesthetic score on CLIP.
    """

    clip: Clip
    frechet: FrechetNet
    clip_translations: Clip | None = None
    lpips: LpipsNet | None = None
    structure: Folder | None = None
    judge: Folder | None = None
    aesthetic: Folder | None = None


@dataclass(frozen=True)
class Dataset(DatasetSpec):
    """Prompts, and images where there are some.

    Attributes:
        shards: Jobs that images of the set are made in.
        reference: The set whose images the Fréchet distance refers to, if another.
        sampled: A run whose images stand for the set's own, where it has captions
            alone; from other noise than the runs that are compared with it.
        scored: Whether its runs are scored, or only looked at.
    """

    shards: Annotated[int, Bounds(1, 1000)] = field(kw_only=True)
    reference: Annotated[str, Ref("datasets")] = ""
    sampled: Annotated[str, Ref("runs")] = ""
    scored: bool = True


@dataclass(frozen=True)
class Trajectory:
    """What adaptors are trained or measured on.

    Attributes:
        model: The teacher.
        dataset: Its prompts.
        spec: How it is recorded.
    """

    model: Annotated[str, Ref("models")]
    dataset: Annotated[str, Ref("datasets")]
    spec: TrajectorySpec


@dataclass(frozen=True)
class Weightless:
    """An adaptor without weights.

    Attributes:
        kind: What it does with features of the past.
        cut: Where the UNet is split.
    """

    kind: Literal["identity", "extrapolation", "taylor"]
    cut: Cut


@dataclass(frozen=True)
class Branch:
    """Reuse at a skip connection, as DeepCache does; no adaptor, but in place.

    Attributes:
        kind: ``branch``.
        branch: DeepCache's branch.
    """

    kind: Literal["branch"]
    branch: Natural


@dataclass(frozen=True)
class Trained:
    """An adaptor that is trained.

    Attributes:
        model: The model whose features it predicts.
        train: The trajectories that it is trained on.
        heldout: Those that it is measured on.
        spec: What it is, and how it is trained.
        gpus: How many train it.
        also_train: Trajectories of further numbers of steps that it is trained on.
    """

    model: Annotated[str, Ref("models")]
    train: Annotated[str, Ref("trajectories")]
    heldout: Annotated[str, Ref("trajectories")]
    spec: AdaptorSpec
    gpus: Positive = 1
    also_train: tuple[Annotated[str, Ref("trajectories")], ...] = ()


@dataclass(frozen=True)
class Run:
    """Images of a data set's prompts by a model.

    Attributes:
        model: The model.
        dataset: The prompts.
        seed: Image i starts from the same noise in every run of it.
        batch_size: Prompts per batch; has no influence on the images.
        sampler: How it samples.
        teacher: The run that it is compared with.
        adaptor: What light steps run.
        level: Keep the UNet down to this level only (depth-skip).
        replicate_of: The run that it is, but for the seed its adaptor is trained from.
    """

    model: Annotated[str, Ref("models")]
    dataset: Annotated[str, Ref("datasets")]
    seed: Seed
    batch_size: Positive
    sampler: SamplerSpec
    teacher: Annotated[str, Ref("runs")] = ""
    adaptor: Annotated[str, Ref("adaptors")] = ""
    level: Level = 13
    replicate_of: Annotated[str, Ref("runs")] = ""


@dataclass(frozen=True)
class Replicates:
    """Runs that are there again, with adaptors that are trained from other seeds.

    Attributes:
        runs: The runs.
        seeds: The other seeds.
    """

    runs: Annotated[tuple[Annotated[str, Ref("runs")], ...], Items(1, unique=True)]
    seeds: Annotated[tuple[Seed, ...], Items(1, unique=True)]


@dataclass(frozen=True)
class SceneEdits:
    """Scenes with exact edits; rendered, or sampled by a model.

    Attributes:
        source: ``scenes``.
        size: Side of the images in pixels.
        count: Number of sources.
        offset: Scenes to skip.
        split: Split of the scenes.
        kinds: Kinds of edits; all if left out.
        sampled: A model samples the sources.
        edits: Of `editing.edits` those that are made of it; all if left out.
        guidance: Of that model.
        steps: Its sampling steps.
        model: The model.
    """

    source: Literal["scenes"]
    size: Annotated[int, Bounds(8, 8192)]
    count: Annotated[int, Bounds(2, 10**6)]
    offset: Natural = 0
    split: Split = "test"
    kinds: Names = ()
    sampled: bool = False
    edits: Annotated[
        tuple[Annotated[str, Ref("editing.edits")], ...], Items(1, unique=True)
    ] = ()
    guidance: Guidance = 1.0
    steps: Steps = 50
    model: Annotated[str, Ref("models")] = ""


@dataclass(frozen=True)
class FolderEdits(EditSetSpec):
    """A folder in the layout of ImageNet-R-TI2I.

    Attributes:
        source: ``folder``.
        size: Side of the images in pixels.
        path: The folder.
        edits: Of `editing.edits` those that are made of it; all if left out.
        model: The model that samples the sources again.
    """

    source: Literal["folder"]
    size: Annotated[int, Bounds(8, 8192)]
    path: Path
    edits: Annotated[
        tuple[Annotated[str, Ref("editing.edits")], ...], Items(1, unique=True)
    ] = ()
    model: Annotated[str, Ref("models")] = ""


@dataclass(frozen=True)
class Setting:
    """Numbers of steps of an inversion and of the generation that follows.

    Attributes:
        inversion: Steps of the inversion.
        generation: Steps of the generation.
        on_request: Made by `snakemake long_edits` alone.
    """

    inversion: Steps
    generation: Steps
    on_request: bool = False


@dataclass(frozen=True)
class Inversion:
    """How images are inverted.

    Attributes:
        model: The model.
        batch_size: Images per batch.
        clock: Runs the whole UNet once in so many steps.
        adaptor: What light steps run.
    """

    model: Annotated[str, Ref("models")]
    batch_size: Positive
    clock: Positive = 1
    adaptor: Annotated[str, Ref("adaptors")] = ""


@dataclass(frozen=True)
class Edit:
    """How inverted images are edited.

    Attributes:
        inversion: Where it starts.
        batch_size: Pairs per batch.
        guidance: Scale of guidance.
        tau_f: Share of the steps that inject features.
        tau_a: Share of the steps that inject self-attention.
        negative_prompt: What guidance leads away from.
        conv_layer: The layer whose features are injected.
        target: Towards the target prompt, or back to the source.
        teacher: The edit that it is compared with.
        clock: Runs the whole UNet once in so many steps.
        adaptor: What light steps run.
        drop_source: Leave the source's rows out where nothing is injected.
        features: What is kept of the source.
        spill: Keep it on disk.
        settings: Of `editing.settings` those at which it is made; all if left out.
    """

    inversion: Annotated[str, Ref("editing.inversions")]
    batch_size: Positive
    guidance: Guidance
    tau_f: Share
    tau_a: Share
    negative_prompt: str = ""
    conv_layer: Annotated[str, Text()] = ""
    target: Annotated[str, OneOf(("target", "source"))] = "target"
    teacher: Annotated[str, Ref("editing.edits")] = ""
    clock: Positive = 1
    adaptor: Annotated[str, Ref("adaptors")] = ""
    drop_source: bool = False
    features: Annotated[str, OneOf(("latents", "activations"))] = "latents"
    spill: bool = False
    settings: Annotated[
        tuple[Annotated[str, Ref("editing.settings")], ...], Items(1, unique=True)
    ] = ()


@dataclass(frozen=True)
class EditLatency:
    """Which edits are timed.

    Attributes:
        runs: Edited runs, as ``<edit>/<setting>``.
        repeats: How often each.
        dtype: Precision.
    """

    runs: Names
    repeats: Positive
    dtype: Precision = "float32"


@dataclass(frozen=True)
class Editing:
    """Inversions and edits, each at every setting of step counts.

    Attributes:
        settings: Numbers of steps.
        inversions: How images are inverted.
        edits: How they are edited.
        together: Settings that one job makes all of; it loads the model once.
        latency: Which edits are timed.
    """

    settings: dict[str, Setting]
    inversions: dict[str, Inversion]
    edits: dict[str, Edit]
    together: Annotated[
        tuple[Annotated[str, Ref("editing.settings")], ...], Items(0, unique=True)
    ] = ()
    latency: EditLatency | None = None


@dataclass(frozen=True)
class TranslationSet(PairSetSpec):
    """Pairs to translate.

    Attributes:
        shards: Jobs that a translation of the set is made in.
    """

    shards: Annotated[int, Bounds(1, 1000)] = 1


@dataclass(frozen=True)
class Searched:
    """Whose answer for so many steps the timesteps are.

    Attributes:
        search: The search.
        method: Which of its methods.
    """

    search: Annotated[str, Ref("step_searches")]
    method: Annotated[str, OneOf(("uniform", *METHODS), elsewhere=True)]


@dataclass(frozen=True)
class Translating:
    """How a translator runs over pairs.

    Attributes:
        translator: The model.
        set: The pairs.
        seed: Pair i starts from the same noise in every run of it.
        batch_size: Pairs per batch; has no influence on the images.
        guidance: Scale of guidance by the prompt, s_T.
        image_guidance: Scale of guidance by the input image, s_I; for edits.
        scheduler: The solver.
        level: Keep the UNet down to this level only (depth-skip).
        clock: Runs the whole UNet once in so many steps.
        adaptor: What light steps run: one without weights.
        from_noise: Restoration starts from noise alone, not from the noised input.
        fidelity: Weight of the input's features in its decoder.
    """

    translator: Annotated[str, Ref("translators")]
    set: Annotated[str, Ref("translation_sets")]
    seed: Seed
    batch_size: Positive
    guidance: Guidance = 1.0
    image_guidance: Guidance = 1.0
    scheduler: Solver = "ddim"
    level: Level = 13
    clock: Positive = 1
    adaptor: Annotated[str, Ref("adaptors")] = ""
    from_noise: bool = False
    fidelity: Annotated[float, Bounds(0, 1)] | None = None


@dataclass(frozen=True)
class Translation(Translating):
    """A run of a translator over a set of pairs.

    Attributes:
        steps: Number of sampling steps.
        teacher: The translation that it is compared with.
        timesteps: The timesteps, descending; evenly spaced if left out.
        searched: A search that found the timesteps.
    """

    steps: Steps = field(kw_only=True)
    teacher: Annotated[str, Ref("translations")] = ""
    timesteps: Annotated[
        tuple[Annotated[int, Bounds(0, 999)], ...], Items(1, unique=True)
    ] = ()
    searched: Searched | None = None


@dataclass(frozen=True)
class DepthSearch:
    """A search for the level of a translator, or for one at each step.

    Attributes:
        translator: The model.
        set: The pairs that it searches on.
        heldout: Pairs that judge what is found.
        seed: Of the noise.
        batch_size: Pairs per batch.
        steps: Number of sampling steps.
        levels: The levels to scan, from the whole UNet's upwards.
        thresholds: What the chosen level keeps to.
        guidance: Scale of guidance by the prompt.
        image_guidance: Scale of guidance by the input image.
        scheduler: The solver.
        multi: A level for each of so many groups of steps.
    """

    translator: Annotated[str, Ref("translators")]
    set: Annotated[str, Ref("translation_sets")]
    heldout: Annotated[str, Ref("translation_sets")]
    seed: Seed
    batch_size: Positive
    steps: Steps
    levels: Levels
    thresholds: Annotated[tuple[Threshold, ...], Items(1)]
    guidance: Guidance = 1.0
    image_guidance: Guidance = 1.0
    scheduler: Annotated[str, OneOf(("ddim", "dpmpp"))] = "ddim"
    multi: MultiSpec | None = None


@dataclass(frozen=True)
class StepSearch(Translating):
    """A search for time steps, by γ and by AutoDiffusion.

    Attributes:
        steps: Numbers of steps.
        methods: What is asked for, and for which of the steps.
        reference: Evenly spaced DDIM steps of what others are compared with.
        heldout: Pairs that judge what is found; none for γ alone.
        evolution_set: Pairs that AutoDiffusion goes by, if others.
        scheduler: The solver.
        whole_reference: The reference is of the whole UNet, and not at the level.
        direction: Of the greedy search, 1 towards γ > 1, -1 towards γ < 1.
        most: Evaluations of a search for γ, at most.
        resamples: Sets of pairs, drawn with replacement, that give γ an interval.
        evolution: AutoDiffusion's budget; its code's own if left out.
        also: Other searches of the same model, whose steps are measured, too.
    """

    steps: Counts = field(kw_only=True)
    methods: dict[Annotated[str, OneOf(tuple(METHODS), elsewhere=True)], Counts] = (
        field(kw_only=True)
    )
    reference: Steps = field(kw_only=True)
    heldout: Annotated[str, Ref("translation_sets")] = ""
    evolution_set: Annotated[str, Ref("translation_sets")] = ""
    scheduler: Annotated[str, OneOf(("ddim", "dpmpp"))] = "ddim"
    whole_reference: bool = False
    direction: Annotated[int, OneOf((1, -1))] = 1
    most: Positive = 20
    resamples: Natural = 0
    evolution: EvolutionSpec | None = None
    also: Annotated[
        tuple[Annotated[str, Ref("step_searches")], ...], Items(1, unique=True)
    ] = ()


@dataclass(frozen=True)
class BenchmarkTask:
    """What all methods of the benchmark do, on the same images and noise.

    Attributes:
        planning: The data set, or the set of pairs, that plans and grids are made on.
        planned_on: So many of it.
        scheduler: The solver of all methods, and of the teacher.
        steps: Number of steps of the plain sampler that all is compared with.
        reference: Number of steps of the teacher's images.
        seed: Image i starts from the same noise whatever is measured.
        batch_size: Images per batch; has no influence on the images.
        budgets: Shares of the FLOPs at which the best methods are named.
        timed: How often each method takes its turn against plain steps.
        guidance: Scale of guidance by the prompt.
    """

    planning: Annotated[str, Ref("datasets", "translation_sets")]
    planned_on: Positive
    scheduler: Annotated[str, OneOf(("dpmpp",))]
    steps: Steps
    reference: Steps
    seed: Seed
    batch_size: Positive
    budgets: Annotated[
        tuple[Annotated[float, Bounds(above=0, most=1)], ...], Items(1, unique=True)
    ]
    timed: Annotated[int, Bounds(2, 1000)]
    guidance: Guidance


@dataclass(frozen=True)
class CaptionsTask(BenchmarkTask):
    """Text-to-image.

    Attributes:
        model: The model.
        dataset: The captions, each with as many noises as the set has seeds.
        masks: Predictors for which every mask of the steps is measured.
        mask_captions: On so many captions.
    """

    model: Annotated[str, Ref("models")] = field(kw_only=True)
    dataset: Annotated[str, Ref("datasets")] = field(kw_only=True)
    masks: Annotated[
        tuple[Annotated[str, Ref("adaptors")], ...], Items(0, unique=True)
    ] = ()
    mask_captions: Annotated[int, Bounds(1, 10000)] = 16


@dataclass(frozen=True)
class PairsTask(BenchmarkTask):
    """An image-to-image task.

    Attributes:
        translator: The model.
        set: The pairs.
        seeds: Sampling seeds of each pair.
        image_guidance: Scale of guidance by the input image; for edits.
    """

    translator: Annotated[str, Ref("translators")] = field(kw_only=True)
    set: Annotated[str, Ref("translation_sets")] = field(kw_only=True)
    seeds: Positive = 1
    image_guidance: Guidance = 1.0


@dataclass(frozen=True)
class Benchmarked:
    """A method of the benchmark.

    Attributes:
        task: What it is measured on.
        kind: What it is: a method of ours, or ``my_package.my_module:MyMethod``.
        label: What tables call it; methods of one label and task are the same one,
            trained from different seeds.
        adaptor: What light steps run, of a kind that reuses features.
        than: Another method, from which the difference is told.
        settings: The method's own.
        sliced: Whether it is in the slice of the benchmark that `make` runs.
    """

    task: Annotated[str, Ref("benchmark_tasks")]
    kind: Annotated[str, OneOf(tuple(BENCHMARKED), elsewhere=True)]
    label: Annotated[str, Text()]
    adaptor: Annotated[str, Ref("adaptors")] = ""
    than: Annotated[str, Ref("benchmark")] = ""
    settings: dict[str, Any] = field(default_factory=dict)
    sliced: bool = False


@dataclass(frozen=True)
class Finetuned:
    """A mini translator that is trained further after depth-skip.

    Attributes:
        translator: Where it starts.
        recipe: The recipe of `training.translators` that it is trained by.
        pairs: Pairs to train on.
        level: The deepest level that is left.
        set: Pairs that the gain is measured on.
        seed: Of the noise.
        batch_size: Pairs per batch.
        steps: Number of sampling steps.
        optimisation: What differs from the recipe's.
        guidance: Scale of guidance by the prompt.
        image_guidance: Scale of guidance by the input image.
    """

    translator: Annotated[str, Ref("translators")]
    recipe: str
    pairs: Positive
    level: Level
    set: Annotated[str, Ref("translation_sets")]
    seed: Seed
    batch_size: Positive
    steps: Steps
    optimisation: dict[str, Any]
    guidance: Guidance = 1.0
    image_guidance: Guidance = 1.0


@dataclass(frozen=True)
class Latency:
    """Which runs are timed.

    Attributes:
        runs: The runs.
        repeats: How often each.
        dtype: Precision.
    """

    runs: Annotated[tuple[Annotated[str, Ref("runs")], ...], Items(1)]
    repeats: Positive
    dtype: Precision = "float32"


@dataclass(frozen=True)
class Perturbation:
    """Runs with perturbed features (Eq. 1).

    Attributes:
        model: The model.
        dataset: The prompts.
        spec: Which perturbations.
    """

    model: Annotated[str, Ref("models")]
    dataset: Annotated[str, Ref("datasets")]
    spec: PerturbationSpec


@dataclass(frozen=True)
class Backbone:
    """A backbone that is distilled from a teacher.

    Attributes:
        teacher: The model, or another backbone.
        dataset: What it is distilled on.
        spec: How.
    """

    teacher: Annotated[str, Ref("backbones", "models")]
    dataset: Annotated[str, Ref("datasets")]
    spec: BackboneSpec


@dataclass(frozen=True)
class Quality:
    """A model that the judge of scenes judges by a run, and a grid to show.

    Attributes:
        run: The run.
        title: Title of the grid.
        caption: Its caption.
        prompts: The prompts that are shown.
        columns: Columns of the grid.
    """

    run: Annotated[str, Ref("runs")]
    title: str
    caption: str
    prompts: Annotated[tuple[Natural, ...], Items(1)]
    columns: Positive


@dataclass(frozen=True)
class CocoArchive:
    """A folder of prompts and images, made of COCO's archives.

    Attributes:
        path: The folder.
        archives: The source that brings the archives.
        split: Which images.
        without: A set whose images are left out.
    """

    path: Path
    archives: Annotated[str, Ref("sources")]
    split: Annotated[str, Text("[a-z]+[0-9]{4}")]
    without: Annotated[str, Ref("coco")] = ""


@dataclass(frozen=True)
class CocoPairs:
    """A folder of pairs, made of such a folder.

    Attributes:
        path: The folder.
        of: The folder of images.
        without: A set whose images are left out.
    """

    path: Path
    of: Annotated[str, Ref("coco")]
    without: Annotated[str, Ref("coco")] = ""


@dataclass(frozen=True)
class Scale:
    """All sections of a scale.

    Attributes:
        models: Text-to-image models.
        encoders: Networks that score images.
        datasets: Prompts to sample from or to train on.
        runs: Images of prompts.
        translators: Models for image-to-image tasks.
        trajectories: What adaptors are trained on; they follow from the adaptors.
        adaptors: What light steps run.
        replicates: Runs that are there again, from other training seeds.
        edit_sets: Images to edit.
        editing: Inversions and edits.
        translation_sets: Pairs to translate.
        translations: Runs of translators.
        depth_searches: Searches for levels.
        step_searches: Searches for time steps.
        finetuned: Mini translators that are trained further after depth-skip.
        benchmark_tasks: What the methods of the benchmark are measured on.
        benchmark: The methods of the benchmark.
        latency: Which runs are timed.
        perturbations: Runs with perturbed features.
        backbones: Backbones that are distilled.
        quality: What judges mini models.
        training: Recipes of mini models; each step's class checks its own.
        offline: Ask no server for sources.
        sources: Where folders of weights or data come from.
        coco: Folders that are made of COCO.
    """

    models: dict[str, Model]
    encoders: Encoders
    datasets: dict[str, Dataset]
    runs: dict[str, Run]
    translators: dict[str, Pipeline | Steering] = field(default_factory=dict)
    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    adaptors: dict[str, Weightless | Branch | Trained] = field(default_factory=dict)
    replicates: Replicates | None = None
    edit_sets: dict[str, SceneEdits | FolderEdits] = field(default_factory=dict)
    editing: Editing | None = None
    translation_sets: dict[str, TranslationSet] = field(default_factory=dict)
    translations: dict[str, Translation] = field(default_factory=dict)
    depth_searches: dict[str, DepthSearch] = field(default_factory=dict)
    step_searches: dict[str, StepSearch] = field(default_factory=dict)
    finetuned: dict[str, Finetuned] = field(default_factory=dict)
    benchmark_tasks: dict[str, CaptionsTask | PairsTask] = field(default_factory=dict)
    benchmark: dict[str, Benchmarked] = field(default_factory=dict)
    latency: Latency | None = None
    perturbations: dict[str, Perturbation] = field(default_factory=dict)
    backbones: dict[str, Backbone] = field(default_factory=dict)
    quality: dict[str, Quality] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    offline: bool = False
    sources: dict[str, SourceSpec] = field(default_factory=dict)
    coco: dict[str, CocoArchive | CocoPairs] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """The whole configuration.

    Attributes:
        max_runtime: Minutes that a job asks of a cluster at most.
        max_mem_mb: Megabytes that a job asks of a cluster at most.
        gpu_model: The model of GPU, such as ``a100``, if any other will not do.
        measured: Whether the paper scale's tables show our scores.
        hub_owner: Whose repositories the cards of `hub_folders` name.
        mini: Small shipped models, at sizes that a laptop makes in half an hour.
        study: The same models at sizes that decide, made in hours.
        paper: Real models.
        pilot: Rows of the paper scale that one GPU makes in hours.
        random: The paper scale with random weights.
    """

    max_runtime: Positive
    max_mem_mb: Positive
    gpu_model: Annotated[str, Text("[A-Za-z0-9_.]*")]
    measured: bool
    mini: Scale
    study: Scale
    paper: Scale
    pilot: Scale
    hub_owner: Annotated[str, Text(r"[\w.-]+")] = "clockwork-diffusion"
    random: Scale | None = None
