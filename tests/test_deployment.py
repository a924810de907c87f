"""The files of ``serving/`` for systemd, Docker and Kubernetes: sound, and of one mind."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cascade.config import GatewayConfig, load_config
from cascade.errors import ConfigError
from cascade.gateway.asgi import OPEN
from cascade.recipes import load_recipes
from tests.programs import program, run

ROOT = Path(__file__).parents[1]
SERVING = ROOT / "serving"
KUBERNETES = SERVING / "kubernetes"
CONFIGS = {"compose": SERVING / "docker/config/gateway.yaml", "pod": KUBERNETES / "gateway.yaml"}

GENERATOR, MOUNTS = "configMapGenerator", "volumeMounts"

# an engine that is down must take a gateway out of the load balancer, not restart it
PROBES = {"startup": "/health", "liveness": "/health", "readiness": "/ready"}

REST_SECONDS = 10  # engines, audits and traces, after the last request
VARIABLE = re.compile(r"\$\{(\w+)\}")
SECRET = re.compile(r"KEY|PASSWORD|TOKEN|SECRET")


def compose() -> Any:
    return yaml.safe_load((SERVING / "compose.yaml").read_text())


def manifest(name: str) -> Any:
    return yaml.safe_load((KUBERNETES / name).read_text())


def pod() -> Any:
    return manifest("deployment.yaml")["spec"]["template"]["spec"]


def container() -> Any:
    (found,) = pod()["containers"]
    return found


def config_of(path: Path) -> GatewayConfig:
    names = VARIABLE.findall(_without_comments(path))
    return load_config(path, {name: _filled(name) for name in names})


def _without_comments(path: Path) -> str:
    return re.sub(r"(?m)#.*$", "", path.read_text())


def _filled(name: str) -> str:
    """Something of the right shape."""
    shapes = {"LARGE_URL": "http://gpu:8000/v1", "CASCADE_STORE": "postgresql+psycopg://u@h/d"}
    return shapes.get(name, f"{name.lower()}-0123456789")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, each with its argument in one line."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (SERVING / "Dockerfile").read_text())
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def given(name: str) -> list[str]:
    return [argument for instruction, argument in instructions() if instruction == name]


def image_environment() -> Mapping[str, str]:
    return dict(pair.split("=", 1) for line in given("ENV") for pair in shlex.split(line))


def service_of_systemd() -> configparser.SectionProxy:
    """Of a directive that is there twice, the last one."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SERVING / "systemd/cascade.service")
    return parser["Service"]


# configuration


@pytest.mark.parametrize("path", [*SERVING.rglob("*.yaml"), *SERVING.rglob("*.yml")], ids=str)
def test_every_file_is_yaml(path: Path) -> None:
    assert all(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("where", CONFIGS)
def test_the_gateway_understands_its_configuration(where: str) -> None:
    config = config_of(CONFIGS[where])
    assert config.listen.host == "0.0.0.0" and config.callers and config.admin_key


@pytest.mark.parametrize("where", CONFIGS)
def test_without_its_secrets_no_gateway_starts(where: str) -> None:
    with pytest.raises(ConfigError, match="is not set in the environment"):
        load_config(CONFIGS[where], {})


def test_every_variable_is_handed_in() -> None:
    handed = {
        "compose": compose()["services"]["gateway"]["environment"],
        "pod": manifest("secret.example.yaml")["stringData"],
    }
    for where, path in CONFIGS.items():
        assert set(VARIABLE.findall(_without_comments(path))) == set(handed[where])


def test_no_secret_is_in_a_file() -> None:
    assert set(manifest("secret.example.yaml")["stringData"].values()) == {""}
    for service in compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not SECRET.search(name) or value.startswith("${"), name
    for line in (SERVING / "docker/env.example").read_text().splitlines():
        name, _, value = line.partition("=")
        assert not SECRET.search(name) or value in ("", "none")
    assert not [name for name in image_environment() if SECRET.search(name)]


def test_the_recipes_of_the_cluster_are_recipes() -> None:
    generated = {one["name"]: one["files"] for one in manifest("kustomization.yaml")[GENERATOR]}
    names = [Path(file).name for file in generated["cascade-recipes"]]
    assert sorted(names) == sorted(path.name for path in (KUBERNETES / "recipes").iterdir())
    assert load_recipes(KUBERNETES / "recipes")


# what must agree


def test_the_port_is_one() -> None:
    (port,) = {config_of(path).listen.port for path in CONFIGS.values()}
    (exposed,), (health,) = given("EXPOSE"), given("HEALTHCHECK")
    assert exposed == str(port) and f":{port}/health" in health
    assert compose()["services"]["gateway"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert container()["ports"] == [{"name": "http", "containerPort": port}]
    (inside,) = manifest("service.yaml")["spec"]["ports"]
    assert inside["targetPort"] == "http"
    (ingress,) = manifest("network.yaml")["spec"]["ingress"]
    assert ingress["ports"] == [{"port": port}]
    scraped = yaml.safe_load((SERVING / "docker/prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"] == [{"targets": [f"gateway:{port}"]}]


def test_nobody_kills_a_gateway_that_drains() -> None:
    drain = {where: config_of(path).listen.drain_seconds for where, path in CONFIGS.items()}
    grace = int(compose()["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace >= drain["compose"] + REST_SECONDS
    sleep = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= sleep + drain["pod"] + REST_SECONDS
    default = load_config(SERVING / "gateway.yaml", {}).listen.drain_seconds
    assert int(service_of_systemd()["TimeoutStopSec"]) >= default + REST_SECONDS


def test_the_user_is_one_and_not_root() -> None:
    (user,) = given("USER")
    number, group = map(int, user.split(":"))
    assert number > 0 and group > 0
    made = " ".join(given("RUN"))
    assert f"--uid {number}" in made and f"--gid {group}" in made
    context = pod()["securityContext"]
    assert context["runAsNonRoot"] is True
    assert (context["runAsUser"], context["runAsGroup"]) == (number, group)
    assert context["fsGroup"] == group  # else the models' volume cannot be written


def test_paths_agree() -> None:
    image = image_environment()
    for where, targets in _mounts().items():
        config = config_of(CONFIGS[where])
        assert config.models == image["CASCADE_MODELS"] and config.models in targets
        assert config.tasks in targets
        folder = str(Path(image["CASCADE_CONFIG"]).parent)
        assert targets[folder] == CONFIGS[where].name == Path(image["CASCADE_CONFIG"]).name
        # no mount point can be made inside of another mount that is read-only
        assert not [one for one in targets for other in targets if one.startswith(other + "/")]


def _mounts() -> dict[str, dict[str, str | None]]:
    """Where what is mounted; of a folder with one file, that file's name."""
    volumes = [one.split(":") for one in compose()["services"]["gateway"]["volumes"]]
    folders = {target: _only_file(SERVING / source) for source, target, *_ in volumes}
    maps = {one["name"]: one.get("configMap", {}).get("name") for one in pod()["volumes"]}
    files = {one["name"]: one["files"][0] for one in manifest("kustomization.yaml")[GENERATOR]}
    mounted = {one["mountPath"]: files.get(maps[one["name"]]) for one in container()[MOUNTS]}
    return {"compose": folders, "pod": mounted}


def _only_file(folder: Path) -> str | None:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return names[0] if len(names) == 1 else None


# Docker


def test_images_are_pinned() -> None:
    images = [line.split()[0] for line in given("FROM")]
    images += [service["image"] for service in compose()["services"].values()]
    for image in images:
        assert re.search(r":[\w.-]*\d", image) and not image.endswith(":latest"), image


def test_the_image_has_what_is_copied_and_nothing_else() -> None:
    copied = [line.split()[:-1] for line in given("COPY") if not line.startswith("--from")]
    sources = {source for line in copied for source in line}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "**" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == sources
    assert all((ROOT / source).exists() for source in sources)


def test_signals_reach_the_gateway() -> None:
    assert [json.loads(line) for line in given("ENTRYPOINT")] == [["cascade"]]  # no shell between
    assert [json.loads(line) for line in given("CMD")] == [["serve"]]


def test_the_dockerfile_passes_hadolint() -> None:
    run(program("hadolint"), SERVING / "Dockerfile")


def test_what_compose_mounts_is_there() -> None:
    described = compose()
    for service in described["services"].values():
        for source in (one.split(":")[0] for one in service.get("volumes", [])):
            known = (SERVING / source).exists() if "/" in source else source in described["volumes"]
            assert known, source


def test_compose_opens_ports_on_loopback_only() -> None:
    for service in compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_both_prometheus_scrape_the_job_of_the_rules() -> None:
    here, there = (
        yaml.safe_load((SERVING / name).read_text())
        for name in ("prometheus/prometheus.yml", "docker/prometheus.yml")
    )
    jobs = [[one["job_name"] for one in each["scrape_configs"]] for each in (here, there)]
    assert jobs[0] == jobs[1]
    assert there["rule_files"] == [f"rules/{name}" for name in here["rule_files"]]


# Kubernetes


def test_selectors_find_the_gateway() -> None:
    labels = manifest("deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert manifest("deployment.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service.yaml")["spec"]["selector"] == labels
    assert manifest("disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("network.yaml")["spec"]["podSelector"]["matchLabels"] == labels


def test_what_the_pod_names_is_there() -> None:
    volumes = {one["name"]: one for one in pod()["volumes"]}
    for one in (*pod()["initContainers"], container()):
        assert {mount["name"] for mount in one[MOUNTS]} <= set(volumes)
        assert not [mount for mount in one[MOUNTS] if "subPath" in mount]  # it would never change
    made = {one["name"] for one in manifest("kustomization.yaml")[GENERATOR]}
    assert {one["configMap"]["name"] for one in volumes.values() if "configMap" in one} == made
    (source,) = container()["envFrom"]
    assert source["secretRef"]["name"] == manifest("secret.example.yaml")["metadata"]["name"]
    for file in manifest("kustomization.yaml")["resources"]:
        assert (KUBERNETES / file).exists()


def test_probes_need_no_key() -> None:
    paths = {name: container()[f"{name}Probe"]["httpGet"]["path"] for name in PROBES}
    assert paths == PROBES and set(paths.values()) <= OPEN


def test_one_gateway_may_always_go() -> None:
    replicas = manifest("deployment.yaml")["spec"]["replicas"]
    assert manifest("disruption.yaml")["spec"]["minAvailable"] < replicas


def test_kustomize_renders_it() -> None:
    rendered = [*yaml.safe_load_all(run(program("kubectl"), "kustomize", KUBERNETES).stdout)]
    kinds = sorted(one["kind"] for one in rendered)
    assert kinds == sorted(
        [*2 * ["ConfigMap"], "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"]
    )
    (config,) = [one for one in rendered if one["metadata"]["name"] == "cascade-config"]
    assert config["data"]["gateway.yaml"] == CONFIGS["pod"].read_text()


# systemd


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is installed here."""
    text = (SERVING / "systemd/cascade.service").read_text()
    path = tmp_path / "cascade.service"
    path.write_text(text.replace("/opt/cascade/bin/cascade", shutil.which("true") or "/bin/true"))
    return path


def test_systemd_understands_the_unit(unit: Path) -> None:
    # an unknown directive is only warned of; words about other units are this machine's matter
    assert unit.name not in run(program("systemd-analyze"), "verify", unit).stderr


def test_the_unit_is_sealed(unit: Path) -> None:
    run(program("systemd-analyze"), "security", "--offline=yes", "--threshold=20", unit)


def test_the_unit_writes_to_its_own_folder_only() -> None:
    service = service_of_systemd()
    assert service["ProtectSystem"] == "strict" and service["NoNewPrivileges"] == "yes"
    assert service["ReadWritePaths"] == service["WorkingDirectory"] == "/var/lib/cascade"
    assert service["StateDirectory"] == "cascade" and service["DynamicUser"] == "yes"
    assert int(service["LimitNOFILE"]) >= 65536


# honesty


def test_what_was_not_run_says_so() -> None:
    files = [
        *(SERVING / name for name in ("Dockerfile", "compose.yaml", "systemd/cascade.service")),
        *(KUBERNETES / name for name in ("README.md", "kustomization.yaml")),
        *(path for path in (SERVING / "vllm").glob("*.sh") if path.stat().st_mode & 0o100),
    ]
    for path in files:
        words = re.sub(r"\s+#?\s*", " ", path.read_text().lower())
        assert "not run here" in words, path
