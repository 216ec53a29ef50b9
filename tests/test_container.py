"""What Dockerfile and compose.yaml run does run: on this machine's Python, with a store on loopback in place of MinIO."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import yaml
from http_servers import speaker
from s3_server import BUCKET

from graftax import Hub, save_adapter
from graftax.models.backbone import Backbone

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def words(instruction: str) -> list[str]:
    """The words of an instruction of the Dockerfile, which has them in JSON."""
    (found,) = re.findall(rf"^{instruction}[^\[]*(\[.*\])$", DOCKERFILE, re.MULTILINE)
    return list(json.loads(found))


def test_the_server_over_a_store_answers_and_is_healthy(
    teller: Backbone, teller_dir: Path, tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    server, hub = services["server"], f"s3://{BUCKET}/compose"
    assert set(server["environment"]) < {*s3}
    for name in server["environment"]:
        monkeypatch.setenv(name, s3[name])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Hub(hub).push("voices/sea", save_adapter(speaker(teller, 1), tmp_path / "sea", teller))

    given = {"${BASE:-HuggingFaceTB/SmolLM2-135M-Instruct}": str(teller_dir), "s3://graftax/hub": hub}
    changed = {"0.0.0.0": "127.0.0.1", "8000": "0", "graftax": "-m graftax"}
    line = [changed.get(word, word) for word in words("ENTRYPOINT")] + [given.get(word, word) for word in server["command"]]
    command = [sys.executable, *line[0].split(), *line[1:], "--no-warm-up"]  # else it is healthy when all is compiled
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1].removesuffix("/v1")
            body = {"model": "voices/sea", "prompt": "One day", "max_tokens": 3}
            answer = httpx2.post(f"{address}/v1/completions", json=body, timeout=300).json()
            assert answer["adapter"] == "voices/sea:1"
            python, *check = words(r"HEALTHCHECK[^\n]*\\\n    CMD")
            check = [word.replace("http://127.0.0.1:8000", address) for word in check]
            assert (python, subprocess.run([sys.executable, *check], check=False).returncode) == ("python", 0)
            process.terminate()
            assert process.wait(300) == 0
        finally:
            process.kill()


def test_who_is_healthy_for_compose_is_what_others_wait_for() -> None:
    content = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    services = content["services"]
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] in ("service_healthy", "service_completed_successfully")
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other]
    named = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {name for name in named if not name.startswith(".")} == {*content["volumes"]}
    assert services["store"]["image"] == services["bucket"]["image"]
