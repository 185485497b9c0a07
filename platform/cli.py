"""The command `parsec`. Each command imports what it needs, so that --help is instant."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from parsecrl.algorithms.checkpoints.files import StorageUnreachable
from parsecrl.platform.errors import RunFailed, UserError

# What a disk or a mount says in the middle of a run; any other OSError would be a mistake of ours.
STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 for a run that stopped by itself; 2 for a mistake of the user; 130 for Ctrl-C, 143 for SIGTERM."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except UserError as error:
        print(f"parsec: {_one_line(error)}", file=sys.stderr)
        return 2
    except (RunFailed, StorageUnreachable) as error:
        print(f"parsec: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("\nparsec: interrupted; the same command continues", file=sys.stderr)
        return getattr(error, "exit_code", 130)
    except BrokenPipeError:  # such as `parsec specs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        where = f" at {error.filename}" if error.filename else ""
        print(f"parsec: {error.strerror}{where}; the same command continues once that is put right", file=sys.stderr)
        return 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        """One sentence, as for every other mistake; argparse would print the usage as well."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="parsec", description="Planning inside learned latent spaces, on Ray.", allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    run = commands.add_parser("run", help="run or continue a spec: all phases, evaluation, report", allow_abbrev=False)
    run.add_argument("spec", metavar="SPEC", help="a spec file, or the name of a bundled one (see parsec specs)")
    run.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="override a key")
    run.add_argument(
        "--storage",
        metavar="URI",
        default="runs",
        help="where run folders are: a folder, s3:// or gs:// (default: %(default)s)",
    )
    run.add_argument("--name", help="of the run folder (default: the spec's name)")
    run.add_argument("--address", default="local", help="Ray: auto, ray://..., or local (default: %(default)s)")
    run.add_argument("--fresh", action="store_true", help="start over in a new folder; never deletes")
    run.add_argument("--trust", action="store_true", help="continue a run made elsewhere: unpickles what is in it")
    run.set_defaults(command=_run)

    submit = commands.add_parser("submit", help="run or continue a spec on a Ray cluster", allow_abbrev=False)
    submit.add_argument("spec", metavar="SPEC", help="a spec file, or the name of a bundled one (see parsec specs)")
    submit.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="override a key"
    )
    submit.add_argument("--storage", metavar="URI", help="as the cluster's nodes see it (default: ~/parsec_runs)")
    submit.add_argument("--name", help="of the job and its run folder (default: the spec's name)")
    submit.add_argument("--fresh", action="store_true", help="start over in a new folder; never deletes")
    submit.add_argument("--trust", action="store_true", help="continue a run made elsewhere: unpickles what is in it")
    submit.add_argument("--follow", action="store_true", help="print the log, and end with the job's exit status")
    _add_head(submit)
    submit.set_defaults(command=_submit)

    jobs = commands.add_parser(
        "jobs", help="list the jobs on a Ray cluster, their phases and progress", allow_abbrev=False
    )
    _add_head(jobs)
    jobs.set_defaults(command=_jobs)

    stop = commands.add_parser("stop", help="stop a job; its trials write checkpoints first", allow_abbrev=False)
    stop.add_argument("job", metavar="JOB", help="the job's id, or the name it was submitted with")
    _add_head(stop)
    stop.set_defaults(command=_stop)

    evaluate = commands.add_parser("evaluate", help="evaluate the controller of a checkpoint", allow_abbrev=False)
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint folder, or a run folder's phase")
    evaluate.add_argument("--episodes", type=int, default=100, help="(default: %(default)s)")
    evaluate.add_argument("--controller", choices=["full", "embedded"], help="what the checkpoint must hold")
    evaluate.add_argument("--env", metavar="ID", help="another environment of the same shape")
    evaluate.add_argument("--seed", type=int, default=0, help="of the episodes (default: %(default)s)")
    evaluate.add_argument("--video", metavar="FILE.mp4", help="also record one episode")
    evaluate.set_defaults(command=_evaluate)

    report = commands.add_parser("report", help="tables, figures and one HTML page of runs", allow_abbrev=False)
    report.add_argument(
        "run_dirs", metavar="RUN_DIR", nargs="+", help="run folders; several are compared, studies pooled"
    )
    report.add_argument("--out", metavar="FILE.html", help="of a comparison, or a folder (default: comparison.html)")
    report.set_defaults(command=_report)

    specs = commands.add_parser("specs", help="list the specs, or check one and print it in full", allow_abbrev=False)
    specs.add_argument("spec", metavar="SPEC", nargs="?", help="a spec file or the name of a bundled one")
    specs.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="override a key"
    )
    specs.set_defaults(command=_specs)

    doctor = commands.add_parser("doctor", help="versions, GPU, rendering, Ray, free disk", allow_abbrev=False)
    doctor.add_argument("--address", default=None, help="of a Ray cluster to reach (default: starts one here)")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_head(command: argparse.ArgumentParser) -> None:
    command.add_argument("--address", metavar="URL", help="of the head's dashboard (default: $RAY_API_SERVER_ADDRESS)")
    command.add_argument(
        "--token-file", metavar="FILE", help="with the cluster's token (default: $RAY_AUTH_TOKEN, $RAY_AUTH_TOKEN_PATH)"
    )


def _run(options: argparse.Namespace) -> int:
    from parsecrl.platform.specs import load_spec

    spec = load_spec(options.spec, options.overrides)
    from parsecrl.platform.running.pipeline import run_for_table

    print(run_for_table(spec, options.storage, options.name, options.address, options.fresh, options.trust))
    return 0


def _submit(options: argparse.Namespace) -> int:
    from parsecrl.platform.specs import load_spec

    spec = load_spec(options.spec, options.overrides)
    from parsecrl.platform.running.preflight import check_environment
    from parsecrl.platform.submission import jobs

    client = jobs.connect(options.address, options.token_file)
    check_environment(spec)
    storage = options.storage or jobs.DEFAULT_STORAGE
    job = jobs.submit(client, spec, storage, options.name, options.fresh, options.trust)
    print(job, flush=True)
    try:
        if options.follow:
            return jobs.follow(client, job)
        return jobs.await_begin(client, job)
    except KeyboardInterrupt:
        print(f"\nparsec: the job goes on; to stop it: parsec stop {job}", file=sys.stderr)
        return 130


def _jobs(options: argparse.Namespace) -> int:
    from parsecrl.platform.submission import jobs

    client = jobs.connect(options.address, options.token_file)
    found = jobs.project_jobs(client)
    print(jobs.table(found) if found else f"no jobs of {jobs.PROJECT} at {client.get_address()}")
    return 0


def _stop(options: argparse.Namespace) -> int:
    from parsecrl.platform.submission import jobs

    jobs.stop(jobs.connect(options.address, options.token_file), options.job)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from parsecrl.platform.evaluation.command import evaluate_checkpoint

    evaluate_checkpoint(
        options.checkpoint, options.episodes, options.controller, options.env, options.seed, options.video
    )
    return 0


def _report(options: argparse.Namespace) -> int:
    from pathlib import Path

    from parsecrl.platform.reports import build_comparison, build_report, format_table
    from parsecrl.platform.reports.data import load_run
    from parsecrl.platform.running.analysis import analyse_ended_trials

    for folder in options.run_dirs:
        if "://" not in folder:
            print("".join(f"{line}\n" for line in analyse_ended_trials(Path(folder))), end="")

    if len(options.run_dirs) == 1 and options.out is None:
        run = load_run(options.run_dirs[0])
        page: object = build_report(run)
        print(format_table(run))
    else:
        page, table = build_comparison(options.run_dirs, options.out or "comparison.html")
        print(table, end="\n" if table else "")
    print(f"\nreport: {page}")
    return 0


def _specs(options: argparse.Namespace) -> int:
    from parsecrl.platform.specs import bundled_specs, dump, load_spec

    if options.spec is None:
        for name in bundled_specs():
            spec = load_spec(name)
            where = f"{spec.env.id}: " if spec.env else ""
            print(f"{name:32} {where}{', '.join(phase.name for phase in spec.phases)}")
        return 0
    spec = load_spec(options.spec, options.overrides)
    from parsecrl.platform.running.loggers import check_loggers
    from parsecrl.platform.running.preflight import check_environment

    check_loggers(spec.loggers)
    check_environment(spec)
    print(dump(spec), end="")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from parsecrl.platform.doctor import report

    return 0 if report(options.address) else 1


if __name__ == "__main__":
    sys.exit(main())
