"""All stages of a run in their order: a study from a TOML file, and the demo, which is a study with defaults."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from clas_lens.artifacts import ArtifactError, write_text
from clas_lens.categories.categorize import check_bridge_layers
from clas_lens.cluster.work import Runner
from clas_lens.corpus.bundled import bundled_languages
from clas_lens.given import given
from clas_lens.models.checkpoints import find_checkpoint
from clas_lens.models.presets import PRESETS
from clas_lens.models.sites import check_layers
from clas_lens.steering.intervention import strength
from clas_lens.study.claim import claim
from clas_lens.study.config import (
    CategorizeConfig,
    CollectConfig,
    DemoConfig,
    MethodsConfig,
    ReportConfig,
    SteerConfig,
    StudyConfig,
    TaskConfig,
)
from clas_lens.study.configured import configured_cluster, task_for
from clas_lens.study.run import Run, Say
from clas_lens.study.summary import summary
from clas_lens.study.tables import has_bundled_texts, report_tables, texts_to_read
from clas_lens.vocabulary import check_anchor

SHOWCASE = ("de", "es", "ru", "sw", "zh", "en")


def run_study(config: StudyConfig, out: Path, say: Say, *, progress: bool = True, cluster: Runner | None = None) -> Run:
    """Everything, in order. Killed and started again, it goes on where it was.

    Args:
        cluster: who does the work, as in `Run`; default what `config.cluster` asks for.

    Raises:
        ArtifactError: the folder holds a demo, or a run of another study.
        ClusterError: of the cluster, where `config.cluster` has the study run on one.
        ValueError: what no stage could do with this configuration, before anything is measured.
    """
    given(config, StudyConfig, "run_study needs a StudyConfig", "load_study(...) reads one")
    with configured_cluster(config.cluster, say) if cluster is None else nullcontext(cluster) as runner:
        run = Run(out, config, say=say, progress=progress, cluster=runner)
        refuse_early(run)
        with run.folder.alone():
            claim(run)
            _run_all(run)
    run.cluster = cluster  # a configured one has ended with the study
    return run


def run_demo(config: DemoConfig, say: Say, *, progress: bool = True) -> Run:
    """The stages that take minutes: measure, sort, steer, answer a few questions, collect what the report shows.

    Raises:
        ArtifactError: the folder holds a study.
    """
    measured = CollectConfig(**config.model_dump(include=set(CollectConfig.model_fields) - {"limit"}))
    corpus = Run(config.out, StudyConfig(name="demo", collect=measured)).corpus
    limit = config.limit
    if limit is not None and "limit" not in config.model_fields_set:
        limit = min(limit, corpus.n_independent)  # the demo's own default, not something that was asked for
    study = demo_study(config.model_copy(update={"limit": limit}), corpus.languages)
    run = Run(config.out, study, say=say, progress=progress)
    refuse_early(run)
    with run.folder.alone():
        claim(run, config)
        return _run_all(run)


def demo_study(config: DemoConfig, languages: Sequence[str]) -> StudyConfig:
    """The study that the demo is, for a corpus of these languages: questions are XQuAD of the bundled corpus.

    Raises:
        ValueError: a configured language without bundled questions.
    """
    asked = answer_languages(config, languages)
    questions = TaskConfig(
        task="xquad",
        data="bundled",
        languages=asked,
        whole=True,
        limit=config.questions,
        allow_overlap=True,  # the neurons are measured on the same passages: this shows mechanics, not gains
        max_new_tokens=config.max_new_tokens,
        stop_at_newline=True,
    )
    bundled = has_bundled_texts([*languages, config.anchor])
    parts = {
        name: kind(**{field: getattr(config, field) for field in kind.model_fields})
        for name, kind in (("collect", CollectConfig), ("categorize", CategorizeConfig), ("steer", SteerConfig))
    }
    return StudyConfig(
        name="demo",
        **parts,
        methods=MethodsConfig(methods=("base", "clas")),
        report=ReportConfig(
            texts="bundled" if bundled else "measured", examples=config.effect_texts, neuron_languages=4
        ),
        tasks=(questions,) if asked else (),
    )


def answer_languages(config: DemoConfig, measured: Sequence[str]) -> tuple[str, ...]:
    """The languages to ask in: those configured, or up to six of the measured ones that the bundled corpus has.

    Raises:
        ValueError: a configured language without bundled questions.
    """
    known = bundled_languages()
    if config.answer_languages is not None:
        missing = [code for code in config.answer_languages if code not in known]
        if missing:
            raise ValueError(f"no bundled questions in {missing[0]!r}; available: {', '.join(known)}")
        return config.answer_languages
    bundled = [code for code in measured if code in known]
    preferred = [code for code in SHOWCASE if code in bundled]
    return tuple([*preferred, *(code for code in bundled if code not in preferred)][: len(SHOWCASE)])


def refuse_early(run: Run, *, dry: bool = False) -> None:
    """Raise what a later stage would raise, before anything is measured: data, languages, model, folder.

    Args:
        dry: look at nothing that is not on this disk, and make no folder.
    """
    config = run.config
    local = config.collect.data is None or Path(config.collect.data).exists()
    if config.collect.corpus == "bundled" or (local and config.collect.data is not None) or not dry:
        check_anchor(config.steer.anchor, run.corpus.languages)
        if len(run.corpus.languages) < 2:
            raise ValueError(f"categories compare languages: at least 2 are needed, got {run.corpus.languages[0]}")
        texts_to_read(run)
    for task in config.tasks:
        if task.data == "bundled" or (task.data is not None and Path(task.data).exists()) or not dry:
            task_for(task, "test")
            if config.search is not None:
                task_for(task, "tuning")
    for name in ("beta", "gamma"):
        strength(f"alpha * {name}", config.steer.alpha * strength(name, getattr(config.steer, name)))
    if "model" not in vars(run) and (not dry or not _may_be_on_the_hub(config.collect.model)):
        _check_layers(config, find_checkpoint(config.collect.model).n_layers)


def _check_layers(config: StudyConfig, n_layers: int) -> None:
    """Raise unless the configured layers are some of a model with so many."""
    if config.categorize.layers is not None:
        check_bridge_layers(config.categorize.layers, n_layers)
    if config.methods.vector_layer is not None:
        check_layers([config.methods.vector_layer], n_layers)


def _may_be_on_the_hub(model: str) -> bool:
    """Whether a model that is not on this disk may yet be fetched."""
    local = model.startswith((".", "/", "~")) or model.endswith(".gguf") or model.count("/") > 1
    return model in PRESETS or not (local or Path(model).exists())


def _run_all(run: Run) -> Run:
    run.clas.save_pretrained(run.folder.clas)
    _ = run.searches, run.rows
    report_tables(run)
    write_text(run.folder.root / "summary.md", summary(run))
    check_whole(run)
    return run


def check_whole(run: Run) -> None:
    """Raise if files that were written are gone: somebody has cleared the folder while the run was on.

    Raises:
        ArtifactError: which, and what to do.
    """
    folder = run.folder
    wanted = [folder.study, folder.categories, folder.manifest, folder.clas]
    wanted += [folder.statistics / f"{code}.safetensors" for code in run.statistics.languages]
    wanted += [folder.answers(task) for task in run.rows]
    gone = [path for path in wanted if not path.exists()]
    if gone or "collect" not in folder.read_manifest():
        raise ArtifactError(
            f"{folder.root} was changed while the run was on: {len(gone) or 'some'} of its files are gone"
            f"{f' (such as {gone[0].name})' if gone else ''}. Run the same command again; it makes what is missing."
        )
