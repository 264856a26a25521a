"""Run the workflow: the only way in which a command makes anything."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

from clockwork_experiments.base import storage
from clockwork_experiments.cli.checkout import Checkout

ENDED = "clockwork: the workflow ended with exit code {}; the same command resumes it"

STANDARD_ERROR = 2
"""Where all goes that the workflow says; the standard output is for results."""


@dataclass(frozen=True)
class Workflow:
    """How to run the workflow in a checkout.

    Attributes:
        checkout: The checkout, with files of settings.
        cores: CPU cores that it may use; by default 2, or what the profile says. On a
            cluster they would limit all jobs together.
        dry_run: Say what would run, and run nothing.
        profile: A profile of Snakemake, beside the default one.
        more: More words for Snakemake's command line.
    """

    checkout: Checkout
    cores: int | None = None
    dry_run: bool = False
    profile: Path | None = None
    more: str = ""

    def command(
        self,
        targets: Sequence[str],
        configfile: str = "",
        options: Sequence[str] = (),
    ) -> list[str]:
        """Return the command line that makes targets.

        Args:
            targets: Files or rules; the default one if there are none.
            configfile: One more file of settings, laid over all others.
            options: Options of Snakemake that a command needs.
        """
        words = [sys.executable, "-m", "snakemake", "--quiet", "rules"]
        if self.cores or self.profile is None:
            words += ["--cores", str(self.cores or 2)]
        if self.profile is not None:
            # Snakemake looks for it in the folder that it runs in.
            own = self.profile.expanduser()
            words += ["--profile", str(own.resolve() if own.is_dir() else own)]
        if self.dry_run:
            words.append("--dry-run")
        files = [*map(str, self.checkout.configfiles)]
        files += [configfile] if configfile else []
        if files:
            words += ["--configfile", *files]
        words += [*options, *shlex.split(self.more)]
        return [*words, "--", *targets]

    def make(self, targets: Sequence[str], configfile: str = "") -> None:
        """Make targets; a failure ends the command with the workflow's exit code.

        Raises:
            ValueError: If another run is alive in the checkout.
        """
        if not self.dry_run:
            _release_lock(self.checkout.root)
        self._run(self.command(targets, configfile))

    def report(self, path: str) -> None:
        """Write a report of what there is; another run may go on meanwhile."""
        self._run(self.command([], options=("--report", path)))

    def _run(self, command: Sequence[str]) -> None:
        # Steps call `python`, which must be this one.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        process = subprocess.Popen(
            command,
            cwd=self.checkout.root,
            env={**os.environ, "PATH": path},
            stdout=None if self.dry_run else STANDARD_ERROR,
        )
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue  # Snakemake has heard it, too, and ends its jobs
        if code:
            typer.echo(ENDED.format(code), err=True)
            raise typer.Exit(code if code > 0 else 128 - code)

    def shown(self, result: str) -> Path:
        """Return where a result lies, as it is named from the working folder."""
        root = self.checkout.root
        return Path(result) if root == Path.cwd() else root / result

    def tell(self, results: Sequence[str]) -> None:
        """Print where results are; the text itself of those in Markdown."""
        if self.dry_run:
            return
        for result in results:
            path = self.shown(result)
            if path.suffix == ".md":
                typer.echo(path.read_text(encoding="utf-8"))
            typer.echo(path)


HEADER = """\
# What `clockwork` laid over config.yaml; {said}. The same without clockwork:
# snakemake --cores 2 --configfile {files} -- {targets}
"""


def make_with(
    workflow: Workflow,
    targets: Sequence[str],
    given: Mapping[str, Any],
    file: str,
    said: str,
) -> None:
    """Make targets with settings laid over the configuration, and keep these.

    Args:
        workflow: How to make them.
        targets: Files or rules.
        given: The settings.
        file: Where they are kept; a dry run leaves nothing.
        said: What they are, for who opens that file.
    """
    if not given:
        workflow.make(targets)
        return
    files = shlex.join([*map(str, workflow.checkout.configfiles), file])
    header = HEADER.format(said=said, files=files, targets=shlex.join(targets))
    text = header + yaml.safe_dump(dict(given), sort_keys=False, allow_unicode=True)
    if workflow.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "given.yaml")
            path.write_text(text, encoding="utf-8")
            workflow.make(targets, str(path))
        return
    storage.write_text(workflow.checkout.root / file, text)
    workflow.make(targets, file)


def _release_lock(root: Path) -> None:
    """Release the lock of a run that was killed, as `make` does."""
    from clockwork_experiments.steps.release_lock import release_lock

    release_lock(root)
