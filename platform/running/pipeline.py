"""A run from its spec to its report: phases in order, evaluation, summary, table.

    run_spec(load_spec("cheetah_run_quick"), storage="runs")

Everything that is done is on disk, so the same call after an interruption goes on where it stopped.
"""

from __future__ import annotations

import logging

from parsecrl.platform.cluster import job_record
from parsecrl.platform.errors import UserError
from parsecrl.platform.running.chains import chains_to_do, report_on_chains, run_chains
from parsecrl.platform.running.loggers import check_loggers
from parsecrl.platform.running.one_chain import needs_ray, opened, work_through
from parsecrl.platform.running.preflight import check_products, check_specs, check_trial_resources, warnings_in
from parsecrl.platform.runs import trust as trust_record
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.shipping import own_code
from parsecrl.platform.specs import Chain, Spec, chains_of, has_chains, one_of_each_variant
from parsecrl.platform.storage import Location
from parsecrl.platform.terminal import StatusLine

logger = logging.getLogger(__name__)


def run_spec(
    spec: Spec,
    storage: str | Location = "runs",
    name: str | None = None,
    address: str | None = "local",
    fresh: bool = False,
    *,
    dashboard: bool = True,
    trust: bool = False,
    new_code: bool = False,
) -> Location:
    """Run a spec, or continue its run: phases in order, evaluation, summary, report.

    Args:
        spec: As `load_spec` returns it.
        storage: A folder that every node can reach, or an address in an object store.
        name: The run's own folder in it; None: the spec's name.
        address: Of the Ray cluster; "local" or None starts one. A runtime that is connected already is used as it is.
        fresh: Start over in a new folder (name-2, ...).
        dashboard: Whether a local Ray serves its dashboard.
        trust: Continue a run that was made elsewhere.
        new_code: Continue a run with other code than it began with.

    Returns:
        The run folder.

    Raises:
        UserError: The spec or its storage cannot be used; told before anything is written.
        RunFailed: A phase cannot go on.
        Interrupted: The run was asked to stop; the same call continues it.
    """
    if not isinstance(spec, Spec):
        raise UserError(f"run_spec takes what load_spec returns, got {spec!r}; give load_spec({spec!r})")
    check_loggers(spec.loggers)
    chains = chains_of(spec) if has_chains(spec) else []
    folder = RunFolder.choose(spec, storage, name, fresh, trust, new_code)  # says where its own code is missing
    line = StatusLine()
    checked = check_specs(spec)
    check_products()
    for warning in warnings_in(checked):
        line.note(f"warning: {warning}")
    url = _connect_if_needed(folder, chains, address, dashboard)
    with job_record.end_told(), opened(folder, line, *filter(None, [job_record.publisher()])):
        line.note(f"{job_record.RUN_BEGINS}{folder.path}")
        if codes := own_code.on_path():
            line.note(f"code: {own_code.described(codes)}")
        if trust_record.is_unsigned(trust_record.record_in(folder.path)) and (why := trust_record.why_unsigned()):
            line.note(why)
        if chains:
            run_chains(folder, chains, line)
            report_on_chains(folder, line)
        else:
            work_through(folder, url, line, checked[0])
    return folder.path


def run_for_table(
    spec: Spec,
    storage: str | Location,
    name: str | None,
    address: str | None,
    fresh: bool,
    trust: bool = False,
    new_code: bool = False,
    *,
    check_here: bool = True,
    dashboard: bool = True,
) -> str:
    """`run_spec`, and what ends it: the table and where the report is.

    Args:
        spec: As `run_spec` takes it.
        storage: As `run_spec` takes it.
        name: As `run_spec` takes it.
        address: As `run_spec` takes it. With a ray:// address the run itself goes to the cluster's head node, where the
            storage path is then meant.
        fresh: As `run_spec` takes it.
        trust: As `run_spec` takes it.
        new_code: As `run_spec` takes it.
        check_here: Play the environments in this process first; the head does it in any case, before the first phase.
        dashboard: As `run_spec` takes it.

    Returns:
        Lines: the table, and the report's path.

    Raises:
        UserError: As `run_spec`, or `check_here` is false without a ray:// address.
        RunFailed: As `run_spec`.
        Interrupted: As `run_spec`.
    """
    if address and address.startswith("ray://"):
        if check_here:
            check_specs(spec)
        from parsecrl.platform.cluster.connection import run_on_head_node

        arguments = (spec, str(storage), name, None, fresh, trust, new_code)
        return run_on_head_node(address, run_for_table, *arguments, env_vars=spec.runtime.env_vars)
    if not check_here:
        raise UserError(
            f"--check-on-cluster goes with the address of a cluster's head, ray://..., got {address!r}; leave it out"
        )
    from parsecrl.platform.reports import format_table

    run_dir = run_spec(spec, storage, name, address, fresh, dashboard=dashboard, trust=trust, new_code=new_code)
    report = run_dir / "report" / "index.html"
    return format_table(run_dir) + (f"\n\nreport: {report}" if report.exists() else "")


def _connect_if_needed(folder: RunFolder, chains: list[Chain], address: str | None, dashboard: bool) -> str:
    """Connect, and check what the phases to come ask of the cluster; both before anything is written."""
    if not (chains_to_do(folder, chains) if chains else needs_ray(folder)):
        return ""
    from parsecrl.platform.cluster.connection import connect

    job = {"project": job_record.PROJECT, "name": folder.path.name, "spec": folder.spec.name}
    url = connect(address, dashboard=dashboard, env_vars=folder.spec.runtime.env_vars, job=job)
    for spec in one_of_each_variant(folder.spec) if chains else [folder.spec]:
        if chains or not all(folder.is_finished(phase) for phase in spec.phases):
            check_trial_resources(spec)
    return url
