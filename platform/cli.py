"""The command `parsec`. Each command imports what it needs, so that --help is instant."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence

from parsecrl.algorithms.training.lasting_imports import lasting_imports
from parsecrl.platform.errors import RunFailed, StorageUnreachable, UserError, text_line

# What a disk or a mount says in the middle of a run; any other OSError would be a mistake of ours.
STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `parsec`.

    Args:
        arguments: Of the command line; None: those of this process.

    Returns:
        Exit code 0; 1 for a run that stopped by itself; 2 for a mistake of the user; 130 for Ctrl-C, 143 for SIGTERM.
    """
    options = _parser().parse_args(arguments)
    try:
        _check_here()
        if getattr(options, "code", None):
            from parsecrl.platform.shipping.own_code import put_on_path

            put_on_path(options.code, getattr(options, "spec", None))
        return options.command(options) or 0
    except UserError as error:
        print(f"parsec: {text_line(error, None)}", file=sys.stderr)
        return 2
    except (RunFailed, StorageUnreachable) as error:
        print(f"parsec: {text_line(error, None)}", file=sys.stderr)
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


def _check_here() -> None:
    """Raise UserError in a folder that was deleted, where no path has a meaning and Ray does not start."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(f"the current folder cannot be used ({error.strerror}); change to one that exists") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        """One sentence, as for every other mistake; argparse would print the usage as well."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *arguments: object) -> None:  # type: ignore[override]
        from importlib.metadata import version

        print(f"parsec {version('parsec-rl')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="parsec", description="Planning inside learned latent spaces, on Ray.", allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    overrides, spec, own, begin, head = (_Parser(add_help=False) for _ in range(5))  # what several take
    overrides.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="override a key"
    )
    spec.add_argument("spec", metavar="SPEC", help="a spec file, or the name of a bundled one (see parsec specs)")
    own.add_argument(
        "--code",
        metavar="FOLDER|WHEEL",
        action="append",
        help="code of yours for every process of the run: a folder with an __init__.py is a package of that name, any "
        "other folder holds modules and packages as one of PYTHONPATH does; or a wheel; several times for several",
    )
    begin.add_argument(
        "--new-code", action="store_true", help="continue a run with other --code than it began with, or without"
    )
    begin.add_argument("--name", help="of the run folder, and of the job (default: the spec's name)")
    begin.add_argument("--fresh", action="store_true", help="start over in a new folder; never deletes")
    begin.add_argument("--trust", action="store_true", help="continue a run made elsewhere: unpickles what is in it")
    begin.add_argument(
        "--check-on-cluster",
        action="store_true",
        help="an environment that is on the cluster alone: play it there, before the first phase, and not here first",
    )
    head.add_argument("--address", metavar="URL", help="of the head's dashboard (default: $RAY_API_SERVER_ADDRESS)")
    head.add_argument(
        "--token-file", metavar="FILE", help="with the cluster's token (default: $RAY_AUTH_TOKEN, $RAY_AUTH_TOKEN_PATH)"
    )

    def command(name: str, function: Callable[[argparse.Namespace], int], help: str, *parents: _Parser) -> _Parser:
        made = commands.add_parser(name, help=help, parents=parents, allow_abbrev=False)
        made.set_defaults(command=function)
        return made

    run = command("run", _run, "run or continue a spec: all phases, evaluation, report", spec, overrides, own, begin)
    run.add_argument(
        "--storage",
        metavar="URI",
        default="runs",
        help="where run folders are: a folder, s3:// or gs:// (default: %(default)s)",
    )
    run.add_argument("--address", default="local", help="Ray: auto, ray://..., or local (default: %(default)s)")

    submit = command("submit", _submit, "run or continue a spec on a Ray cluster", spec, overrides, own, begin, head)
    submit.add_argument("--storage", metavar="URI", help="as the cluster's nodes see it (default: ~/parsec_runs)")
    submit.add_argument("--follow", action="store_true", help="print the log, and end with the job's exit status")

    command("jobs", _jobs, "list the jobs on a Ray cluster, their phases and progress", head)

    status = command("status", _status, "chains, phases, trials, failures and time left of a run or a job", head)
    status.add_argument("run", metavar="RUN|JOB", help="a run folder, its address in a store, or with --address a job")

    stop = command("stop", _stop, "stop a job; its trials write checkpoints first", head)
    stop.add_argument("job", metavar="JOB", help="the job's id, or the name it was submitted with")

    evaluate = command("evaluate", _evaluate, "evaluate the controller of a checkpoint", own)
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint folder, or a run folder's phase")
    evaluate.add_argument("--episodes", type=int, default=100, help="(default: %(default)s)")
    evaluate.add_argument("--controller", metavar="KIND", help="what the checkpoint must hold: full, embedded, ...")
    evaluate.add_argument("--env", metavar="ID", help="another environment of the same shape")
    evaluate.add_argument("--seed", type=int, default=0, help="of the episodes (default: %(default)s)")
    evaluate.add_argument("--video", metavar="FILE.mp4", help="also record the episode nearest to the median")
    evaluate.add_argument(
        "--predictions",
        metavar="FILE",
        help="also show that episode beside what the world model predicts: an .mp4 film or a .png figure",
    )
    evaluate.add_argument("--trust", action="store_true", help="run code that a checkpoint made elsewhere names")

    push = command("push", _push, "make a folder of a run's agent, in the layout of the Hugging Face hub")
    push.add_argument("run", metavar="RUN", help="a finished run folder")
    push.add_argument("folder", metavar="FOLDER", help="a new one")
    push.add_argument("--phase", metavar="NAME", help="whose agent (default: the last that was evaluated)")

    pull = command("pull", _pull, "copy an agent's folder here")
    pull.add_argument("source", metavar="SOURCE", help="hf://OWNER/NAME[@REVISION], or a folder")
    pull.add_argument("folder", metavar="FOLDER", help="a new one")

    export = command("export", _export, "a run's episodes as a dataset, or an agent as a torch.export file", own)
    export.add_argument("source", metavar="RUN", help="a run folder, its phase, or a checkpoint folder")
    export.add_argument(
        "--to",
        metavar="DATASET",
        required=True,
        help="a new folder: Minari; FILE.parquet: RLlib's columns; FILE.pt2: the agent's decision by torch.export",
    )
    export.add_argument("--phase", metavar="NAME", help="of the run (default: the last that has begun)")
    export.add_argument("--episodes", type=int, metavar="N", help="play the agent (default: export the replay)")
    export.add_argument("--seed", type=int, default=0, help="of these episodes (default: %(default)s)")
    export.add_argument("--trust", action="store_true", help="run code that a checkpoint made elsewhere names")

    serve = command("serve", _serve, "serve an agent over HTTP on this machine", own)
    serve.add_argument("agent", metavar="AGENT", help="a checkpoint folder, or a run folder's phase")
    serve.add_argument("--port", type=int, default=8000, help="of 127.0.0.1; 0 takes a free one (default: %(default)s)")
    serve.add_argument(
        "--token-file", metavar="FILE", help="with the token that clients show; made where there is none"
    )
    serve.add_argument("--max-batch-size", type=int, metavar="N", help="plans of a batch (default: 16)")
    serve.add_argument("--max-waiting", type=int, metavar="N", help="requests that may wait (default: 128)")
    serve.add_argument("--max-sessions", type=int, metavar="N", help="clients' episodes (default: 1024)")
    serve.add_argument(
        "--session-idle-s", type=float, metavar="S", help="seconds until a silent session is forgotten (default: 600)"
    )
    serve.add_argument("--trust", action="store_true", help="run code that an agent made elsewhere names")

    report = command("report", _report, "tables, figures and one HTML page of runs", own)
    report.add_argument(
        "run_dirs", metavar="RUN_DIR", nargs="+", help="run folders; several are compared, studies pooled"
    )
    report.add_argument("--out", metavar="FILE.html", help="of a comparison, or a folder (default: comparison.html)")

    specs = command("specs", _specs, "list the specs, or check one and print it in full", overrides, own)
    specs.add_argument("spec", metavar="SPEC", nargs="?", help="a spec file or the name of a bundled one")
    specs.add_argument(
        "--keys",
        metavar="ALGORITHM",
        nargs="?",
        const="",
        help="print every key: type, default, range, meaning (of all, or of one algorithm's phases)",
    )

    capacity = command("capacity", _capacity, "hours, core-hours and bottleneck of a spec", spec, overrides)
    capacity.add_argument(
        "--cpus", type=_amount, default=float(os.cpu_count() or 1), help="cores of the cluster (default: those here)"
    )
    capacity.add_argument("--gpus", type=_amount, default=0.0, help="of the cluster (default: none)")
    capacity.add_argument("--gpu-flops", type=_amount, help="FLOP/s that plans reach on a GPU, from `make bench` there")
    capacity.add_argument("--calibrate", action="store_true", help="measure a core of this machine for half a second")

    docs = command("docs", _docs, "list the pages of the documentation, or print one")
    docs.add_argument("page", metavar="PAGE", nargs="?", help="such as plugins")

    doctor = command("doctor", _doctor, "versions, GPU, rendering, Ray, free disk; or a task", own)
    doctor.add_argument("--env", metavar="ID", help="play this task at random instead, and say what is made of it")
    doctor.add_argument("--kwargs", metavar="JSON", default="{}", help="of the task's constructor, as env.kwargs")
    doctor.add_argument("--action-repeat", metavar="N", type=int, default=1, help="(default: %(default)s)")
    doctor.add_argument("--max-episode-steps", metavar="N", type=int, help="as env.max_episode_steps")
    doctor.add_argument("--address", default=None, help="of a Ray cluster to reach (default: starts one here)")
    return parser


def _amount(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"must be a number of 0 or more, got {text!r}")


def _run(options: argparse.Namespace) -> int:
    from parsecrl.platform.specs import load_spec

    spec = load_spec(options.spec, options.overrides)
    with lasting_imports():
        from parsecrl.platform.running.pipeline import run_for_table

    o = options
    here = not o.check_on_cluster
    print(run_for_table(spec, o.storage, o.name, o.address, o.fresh, o.trust, o.new_code, check_here=here))
    return 0


def _submit(options: argparse.Namespace) -> int:
    from parsecrl.platform.specs import load_spec

    spec = load_spec(options.spec, options.overrides)
    from parsecrl.platform.running.preflight import check_specs, warnings_in
    from parsecrl.platform.submission import head, submitting, watching

    if not options.check_on_cluster:
        _print_warnings(warnings_in(check_specs(spec)))
    client = head.connect(options.address, options.token_file)
    storage = options.storage or submitting.DEFAULT_STORAGE
    job = submitting.submit(client, spec, storage, options.name, options.fresh, options.trust, options.new_code)
    print(job, flush=True)
    try:
        if options.follow:
            return watching.follow(client, job)
        return watching.await_begin(client, job)
    except KeyboardInterrupt:
        print(f"\nparsec: the job goes on; to stop it: parsec stop {job}", file=sys.stderr)
        return 130


def _jobs(options: argparse.Namespace) -> int:
    from parsecrl.platform.submission import head, jobs

    client = head.connect(options.address, options.token_file)
    found = jobs.project_jobs(client)
    print(jobs.table(found) if found else f"no jobs of {jobs.PROJECT} at {client.get_address()}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from parsecrl.platform.runs.status import status_text
    from parsecrl.platform.storage import location_of

    if options.address is None and (options.run.startswith(("s3://", "gs://")) or os.path.isdir(options.run)):
        print(status_text(location_of(options.run)))
        return 0
    if options.address is None and not os.environ.get("RAY_API_SERVER_ADDRESS"):
        raise UserError(f"no run folder {options.run!r}; give one, or the head's --address for a job")
    from parsecrl.platform.submission import head, watching

    print(watching.job_status(head.connect(options.address, options.token_file), options.run))
    return 0


def _stop(options: argparse.Namespace) -> int:
    from parsecrl.platform.submission import head, jobs

    jobs.stop(head.connect(options.address, options.token_file), options.job)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from parsecrl.platform.evaluation.command import evaluate_checkpoint

    o = options
    evaluate_checkpoint(o.checkpoint, o.episodes, o.controller, o.env, o.seed, o.video, o.trust, o.predictions)
    return 0


def _push(options: argparse.Namespace) -> int:
    from parsecrl.platform.exchange.hub import push

    print(push(options.run, options.folder, options.phase))
    return 0


def _pull(options: argparse.Namespace) -> int:
    from parsecrl.platform.exchange.hub import pull

    print(pull(options.source, options.folder))
    return 0


def _export(options: argparse.Namespace) -> int:
    from parsecrl.platform.exchange.datasets import export

    print(export(options.source, options.to, options.phase, options.episodes, options.seed, options.trust))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from parsecrl.platform.exchange.limits import Limits
    from parsecrl.platform.exchange.serving import serve_agent

    given = {name: value for name in Limits._fields if (value := getattr(options, name)) is not None}
    serve_agent(options.agent, options.port, options.token_file, Limits(**given), options.trust)
    return 0


def _report(options: argparse.Namespace) -> int:
    from pathlib import Path

    from parsecrl.platform.reports import build_comparison, build_report, format_table
    from parsecrl.platform.reports.loaded_run import load_run
    from parsecrl.platform.reports.over_seeds import has_chains
    from parsecrl.platform.running.analysis import analyse_ended_trials
    from parsecrl.platform.storage import location_of

    for folder in options.run_dirs:
        if "://" not in folder:
            print("".join(f"{line}\n" for line in analyse_ended_trials(Path(folder))), end="")

    if len(options.run_dirs) == 1 and options.out is None:
        run = options.run_dirs[0] if has_chains(location_of(options.run_dirs[0])) else load_run(options.run_dirs[0])
        page: object = build_report(run)
        print(format_table(run))
    else:
        page, table = build_comparison(options.run_dirs, options.out or "comparison.html")
        print(table, end="\n" if table else "")
    print(f"\nreport: {page}")
    return 0


def _specs(options: argparse.Namespace) -> int:
    from parsecrl.platform.specs import bundled_specs, chains_of, dump, has_chains, load_spec, plan_rows

    if options.keys is not None:
        from parsecrl.platform.specs import keys

        if options.spec is not None:
            raise UserError(f"--keys prints the keys of every spec, got the spec {options.spec} too; give one of both")
        print(keys.text(options.keys or None))
        return 0
    if options.spec is None:
        for name in bundled_specs():
            spec = load_spec(name)
            where = f"{spec.env.id}: " if spec.env else ""
            print(f"{name:32} {where}{', '.join(phase.name for phase in spec.phases)}")
        return 0
    spec = load_spec(options.spec, options.overrides)
    from parsecrl.platform.running.loggers import check_loggers
    from parsecrl.platform.running.preflight import check_specs, warnings_in
    from parsecrl.platform.terminal import text_table

    check_loggers(spec.loggers)
    _print_warnings(warnings_in(check_specs(spec)))
    print(dump(spec), end="")
    if has_chains(spec):
        headings, *rows = plan_rows(chains_of(spec))
        print("# chains:", *text_table(headings, rows, rule="-").splitlines(), sep="\n# ")
    return 0


def _print_warnings(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"parsec: warning: {warning}", file=sys.stderr)


def _capacity(options: argparse.Namespace) -> int:
    from parsecrl.platform.capacity import capacity_table
    from parsecrl.platform.specs import load_spec

    spec = load_spec(options.spec, options.overrides)
    print(capacity_table(spec, options.cpus, options.gpus, options.gpu_flops, options.calibrate))
    return 0


def _docs(options: argparse.Namespace) -> int:
    from parsecrl.platform.specs.documentation import contents, page

    print(contents() if options.page is None else page(options.page))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from parsecrl.platform.doctor import report, report_task

    if options.env is None:
        return 0 if report(options.address) else 1
    try:
        kwargs = json.loads(options.kwargs)
    except ValueError:
        kwargs = None
    if not isinstance(kwargs, dict):
        raise UserError(f"--kwargs must be an object of JSON, such as '{{\"size\": 3}}', got {options.kwargs!r}")
    return 0 if report_task(options.env, kwargs, options.action_repeat, options.max_episode_steps) else 1
