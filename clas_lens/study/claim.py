"""A run folder belongs to one study, or to a demo: what is in it is resumed, never mixed."""

from clas_lens.artifacts import ArtifactError, write_text
from clas_lens.study.config import DemoConfig, StudyConfig
from clas_lens.study.run import Run
from clas_lens.study.toml import study_toml

AGAIN = "# All settings of this run. To make it again: clas-lens run study.toml --out ANOTHER_FOLDER"


def claim(run: Run, demo: DemoConfig | None = None) -> None:
    """Take the folder for the run's study, or for the demo that the study is, and leave its `study.toml` there.

    A demo may go on with other options.

    Raises:
        ArtifactError: the folder is another study's or, of a study and a demo, the other's; or it holds answers that would
            stay beside the run's own.
    """
    folder, study = run.folder, run.config.model_dump(mode="json")
    held = folder.read_manifest() if folder.manifest.exists() else {}
    this = f"the study {run.config.name!r}" if demo is None else "a demo"
    if demo is None and "demo" in held:
        raise _refused(run, f"a demo, not {this}")
    if demo is not None and "study" in held:
        raise _refused(run, f"the study {held['study']['config']['name']!r}, not {this}")
    if demo is None and "study" in held and held["study"]["config"] != study:
        raise _refused(run, f"a run of another study, or of another version of {run.config.name!r}")
    own = "study" in held or held.get("demo", {}).get("study") == study
    others = [] if own else [stage for stage in held if stage not in _stages(run.config)]
    if others:
        raise _refused(run, f"what {this} does not make: {', '.join(others)}")
    if demo is None:
        folder.update_manifest("study", run.config)
    else:
        folder.update_manifest("demo", demo, study=study)
    write_text(folder.study, f"{AGAIN}\n{study_toml(study)}\n")


def _refused(run: Run, what: str) -> ArtifactError:
    return ArtifactError(f"{run.folder.root} holds {what}. Give --out another folder, or delete this one.")


def _stages(config: StudyConfig) -> set[str]:
    """The manifest's entries that a run of this study makes anew."""
    answering = ["evaluate"] if config.search is None else ["search", "evaluate"]
    per_task = {f"{stage} {task.task}" for task in config.tasks for stage in answering}
    return {"demo", "collect", "categorize", "report data"} | per_task
