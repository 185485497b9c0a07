"""docker/: linted against published schemas, pinned, bound to localhost, with commands that exist.

Nothing is started here. What was built and run, and what only these tests have seen, is in docs/clusters.md.
"""

import re
import shlex
import shutil
import subprocess
import sysconfig
from functools import partial
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from parsecrl.platform.cli import _parser
from parsecrl.platform.specs import load_spec
from tests.platform.test_packaging import built_files

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
BIN = Path(sysconfig.get_path("scripts"))
KUBERNETES = "1.33"
COMPOSE_FILES = sorted(DOCKER.glob("compose*.yaml"))
PINNED = re.compile(r"[a-z0-9.\-/]+:v?\d+\.\d+(\.\d+)?[\w.\-]*")

# Fields of ray.io/v1 that KubeRay has (ray-operator/apis/ray/v1/*_types.go); pods are checked by Kubernetes' schema.
CLUSTER_FIELDS = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
    "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "workerGroupSpecs",
}  # fmt: skip
HEAD_FIELDS = {"enableIngress", "headService", "rayStartParams", "serviceType", "template"}
WORKER_FIELDS = {
    "groupName", "idleTimeoutSeconds", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams", "replicas",
    "scaleStrategy", "suspend", "template",
}  # fmt: skip
JOB_FIELDS = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint", "entrypointNumCpus",
    "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata", "rayClusterSpec", "runtimeEnvYAML",
    "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend",
    "ttlSecondsAfterFinished",
}  # fmt: skip


def read(name):
    return yaml.safe_load((DOCKER / name).read_text())


def lint(*command):
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def version_of(package):
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    return pins[package]


def project():
    text = (ROOT / "pyproject.toml").read_text()
    return dict(re.findall(r'^(name|version) = "(.*)"$', text, re.MULTILINE))


def check_ray_start(arguments):
    """Parse as `ray start` does, without starting anything; raises where an option or a value is none of Ray's."""
    from ray.scripts.scripts import start

    start.make_context("start", list(arguments))


def check_parsec(arguments):
    options = _parser().parse_args(list(arguments))
    if arguments[0] in {"run", "submit"}:
        load_spec(options.spec, options.overrides)
    return options


# --- lint ----------------------------------------------------------------------------------------------------------


def test_the_dockerfile_passes_hadolint():
    lint("hadolint", "docker/Dockerfile")


def test_every_yaml_file_passes_yamllint():
    lint("yamllint", "docker", ".yamllint.yaml", ".pre-commit-config.yaml")


def test_the_compose_files_follow_the_compose_specification():
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, COMPOSE_FILES))


def test_shell_scripts_pass_shellcheck():
    lint("shellcheck", "docker/slurm.sh", ".ci/run")


# --- the image -----------------------------------------------------------------------------------------------------


def test_the_image_has_the_versions_of_constraints_txt():
    text = (DOCKER / "Dockerfile").read_text()
    instructions = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    installs = re.findall(r"pip install ([^&\n]*)", instructions)
    assert len(installs) == 3
    for options in installs:  # the last is the project itself, whose dependencies are there
        assert "--constraint constraints.txt" in options or options.split() == ["--no-deps", "."]
    text = (ROOT / "pyproject.toml").read_text()
    needed = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL).group(1)
    pinned = {
        name.lower().replace("_", "-")
        for name in re.findall(r"^([\w.\-]+)==", (ROOT / "constraints.txt").read_text(), re.M)
    }
    for name in re.findall(r'"([\w.\-]+)', needed):
        assert name.lower().replace("_", "-") in pinned, name
    assert re.search(r"^USER 1000:1000$", instructions, re.MULTILINE)
    assert "RAY_AUTH_MODE=token" in instructions


def test_the_image_is_made_of_the_package_alone_and_of_all_of_it(tmp_path):
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    assert allowed == {
        "pyproject.toml",
        "constraints.txt",
        "*.md",
        "CITATION.cff",
        "LICENSE",
        "setup.py",
        "__init__.py",
        "__main__.py",
        "py.typed",
        "algorithms",
        "envs",
        "platform",
        "tune_specs",
        "pretrained",
        "docs",
    }
    sources, built = tmp_path / "sources", tmp_path / "built"
    for folder in (sources, built):
        folder.mkdir()
    for file in (file for name in allowed for file in ROOT.glob(name)):
        copy = partial(shutil.copytree, ignore=shutil.ignore_patterns("__pycache__")) if file.is_dir() else shutil.copy
        copy(file, sources / file.name)
    (tmp_path / "whole").mkdir()
    assert built_files(sources, built) == built_files(ROOT, tmp_path / "whole")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
@pytest.mark.parametrize("secret", ["docker/secrets/ray_token", "docker/storage.env"])
def test_secrets_stay_out_of_the_repository(secret):
    assert subprocess.run(["git", "check-ignore", "--quiet", secret], cwd=ROOT).returncode == 0


def test_every_image_is_pinned():
    images = re.findall(r"^\s*(?:- )?image: (\S+)", "\n".join(f.read_text() for f in DOCKER.rglob("*.yaml")), re.M)
    images += re.findall(r"^ARG BASE=(\S+)", (DOCKER / "Dockerfile").read_text(), re.M)
    assert len(images) == 9
    for image in images:
        image = image.replace("${PARSEC_TORCH:-cpu}", "cpu")
        assert PINNED.fullmatch(image), image
        assert "latest" not in image
        if "parsecrl" in image:
            assert f"parsecrl:{project()['version']}-" in image


# --- compose -------------------------------------------------------------------------------------------------------


def test_compose_publishes_on_localhost_alone():
    services = read("compose.yaml")["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert sorted(ports) == ["127.0.0.1:3000:3000", "127.0.0.1:8265:8265", "127.0.0.1:9090:9090"]
    for service in services.values():
        assert "network_mode" not in service
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["head", "worker"])
def test_compose_starts_ray_with_a_token(name):
    compose = read("compose.yaml")
    service = compose["services"][name]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert service["secrets"] == ["ray_token"]
    assert compose["secrets"]["ray_token"] == {"file": "secrets/ray_token"}
    command = shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["command"]))
    assert command[:2] == ["ray", "start"]
    assert "--block" in command  # else the container ends at once
    check_ray_start(command[2:])


def test_prometheus_and_grafana_see_what_they_are_configured_for():
    services = read("compose.yaml")["services"]
    (job,) = read("prometheus.yml")["scrape_configs"]
    (found,) = job["file_sd_configs"][0]["files"]
    assert Path(found).parent == Path("/tmp/ray")
    for name in ("prometheus", "grafana", "head"):
        assert any(volume.split(":")[:2] == ["ray", "/tmp/ray"] for volume in services[name]["volumes"])
    mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in services["grafana"]["volumes"]}
    for file in (DOCKER / "grafana" / "provisioning" / "dashboards").glob("*.yml"):
        (provider,) = yaml.safe_load(file.read_text())["providers"]
        assert any(Path(provider["options"]["path"]).is_relative_to(mount) for mount in mounts)
    for volume in (v for s in services.values() for v in s.get("volumes", []) if v.startswith(".")):
        assert (DOCKER / volume.split(":")[0]).exists(), volume
    assert services["grafana"]["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
    assert services["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


# --- Kubernetes ----------------------------------------------------------------------------------------------------


def cluster_specs():
    return {
        "raycluster": read("kubernetes/raycluster.yaml")["spec"],
        "rayjob": read("kubernetes/rayjob.yaml")["spec"]["rayClusterSpec"],
    }


def pods():
    found = {"submitter": read("kubernetes/rayjob.yaml")["spec"]["submitterPodTemplate"]}
    for name, spec in cluster_specs().items():
        found[f"{name} head"] = spec["headGroupSpec"]["template"]
        found |= {f"{name} {group['groupName']}": group["template"] for group in spec["workerGroupSpecs"]}
    return found


def test_rayjob_makes_the_cluster_of_raycluster():
    assert cluster_specs()["rayjob"] == cluster_specs()["raycluster"]


def test_kuberay_knows_every_field():
    spec = cluster_specs()["raycluster"]
    assert spec.keys() <= CLUSTER_FIELDS
    assert spec["headGroupSpec"].keys() <= HEAD_FIELDS
    assert all(group.keys() <= WORKER_FIELDS for group in spec["workerGroupSpecs"])
    assert read("kubernetes/rayjob.yaml")["spec"].keys() <= JOB_FIELDS
    for file, kind in (("raycluster", "RayCluster"), ("rayjob", "RayJob")):
        assert (read(f"kubernetes/{file}.yaml")["apiVersion"], read(f"kubernetes/{file}.yaml")["kind"]) == (
            "ray.io/v1",
            kind,
        )


@pytest.mark.parametrize("name", pods())
def test_pods_follow_kubernetes_schema_and_run_restricted(name):
    pod = pods()[name]
    template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": pod}
    kubernetes_validate.validate(template, KUBERNETES, strict=True)
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["restartPolicy"] == "Never"
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes
    policy = read("kubernetes/networkpolicy.yaml")
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_the_network_policy_follows_kubernetes_schema():
    kubernetes_validate.validate(read("kubernetes/networkpolicy.yaml"), KUBERNETES, strict=True)


def test_a_wrong_pod_is_noticed():  # the schema is one that refuses
    pod = {"metadata": {}, "spec": {"containers": [{"name": "x", "image": "x", "envFron": []}]}}
    template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": pod}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(template, KUBERNETES, strict=True)


def test_the_cluster_has_token_shared_memory_credentials_and_gpus():
    spec = cluster_specs()["raycluster"]
    assert spec["rayVersion"] == version_of("ray")
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    check_ray_start(["--head", *(f"--{key}={value}" for key, value in spec["headGroupSpec"]["rayStartParams"].items())])
    for name, pod in pods().items():
        if name == "submitter":
            continue
        (container,) = pod["spec"]["containers"]
        assert {"secretRef": {"name": "parsecrl-storage"}} in container["envFrom"]
        memory = next(v["emptyDir"] for v in pod["spec"]["volumes"] if v["name"] == "shared-memory")
        assert memory["medium"] == "Memory"
        assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
        if name.endswith("gpu"):
            gpus = [container["resources"][which]["nvidia.com/gpu"] for which in ("requests", "limits")]
            assert gpus == ["1", "1"]


def test_the_job_runs_a_real_spec_and_is_listed():
    spec = read("kubernetes/rayjob.yaml")["spec"]
    command = shlex.split(spec["entrypoint"])
    assert command[0] == "parsec"
    options = check_parsec(command[1:])
    assert options.address == "auto"
    assert options.storage.startswith("s3://")
    from parsecrl.platform.submission.jobs import PROJECT

    assert spec["metadata"] == {"project": PROJECT, "name": options.name, "spec": load_spec(options.spec).name}
    assert spec["backoffLimit"] > 0


# --- Slurm and the documents ---------------------------------------------------------------------------------------


def test_the_slurm_script_starts_ray_with_a_token_and_options_that_exist(tmp_path):
    text = (DOCKER / "slurm.sh").read_text()
    assert "export RAY_AUTH_MODE=token" in text
    from ray.scripts.symmetric_run import symmetric_run

    srun = re.search(r"ray symmetric-run (.*?) -- ", re.sub(r"\\\n", " ", text)).group(1)
    options = re.findall(r"--([\w-]+)", srun)
    own = {name for parameter in symmetric_run.params for name in parameter.opts}
    check_ray_start(["--address=x:1", *(f"--{option}=1" for option in options if f"--{option}" not in own)])
    done = subprocess.run(["bash", DOCKER / "slurm.sh"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr


def documented_commands():
    """Every line of a code block that begins with parsec, in whatever way it is reached. Notes are of past versions."""
    pages = [file for file in sorted((ROOT / "docs").rglob("*.md")) if not file.stem.endswith("_notes")]
    for file in [ROOT / "README.md", *pages]:
        for block in re.findall(r"^```sh\n(.*?)^```", file.read_text(), re.MULTILINE | re.DOTALL):
            for line in re.sub(r"\\\n", " ", block).splitlines():
                found = re.match(
                    r"(?:\S+=\S+ )*(?:docker compose exec head )?(?:\.venv/bin/)?(parsec .*)", line.strip()
                )
                if found:
                    yield pytest.param(file, found.group(1), id=f"{file.name}: {found.group(1)[:60]}")


@pytest.mark.parametrize(("file", "line"), list(documented_commands()))
def test_documented_commands_exist(file, line, tmp_path, monkeypatch):
    for spec in re.findall(r"^```yaml\n(.*?)^```", file.read_text(), re.MULTILINE | re.DOTALL):
        if name := re.search(r"^name: (\w+)$", spec, re.MULTILINE):  # a page's own spec lies where its command is given
            (tmp_path / f"{name.group(1)}.yaml").write_text(spec)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)[1:]
    check_parsec(words)
