"""The commands of the README's section on clusters that need no cloud, as they stand there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]


def blocks() -> tuple[str, str, str]:
    """For a cloud, on one machine, and a look at the log."""
    section = (ROOT / "README.md").read_text().partition("## On a cluster")[2].partition("\n## ")[0]
    cloud, here, log = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return cloud, here, log


def test_a_command_that_needs_an_account_says_so() -> None:
    commands = blocks()[0].replace("\\\n", "").splitlines()
    needy = [line for line in commands if re.match(r"(python configs/aws|ray up|ray dashboard|ray job|kubectl)", line)]
    assert len(needy) == 5
    for before, line in zip(["", *commands], commands, strict=False):
        assert line not in needy or " needs " in line or "the next needs that cluster" in before, line


@pytest.mark.ray
@pytest.mark.train
@pytest.mark.serve
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not (ROOT / ".venv/bin/ray").exists(), reason="the commands want the environment of `make setup`")
@pytest.mark.skipif(not shutil.which("jq"), reason="one of the commands is jq")
def test_the_commands_for_one_machine_run_as_they_stand(tmp_path: Path) -> None:
    if any(process.name() == "raylet" for process in psutil.process_iter()):
        pytest.skip("a Ray runs on this machine: `ray stop` would end it")
    cloud, here, log = blocks()
    needs_none = cloud[: cloud.index("python configs/aws_roles.py")]
    read = "from pipeline.storage import Place; "
    read += "print(Place('s3://bucket/demo/1_curate/manifest.json', 'http://127.0.0.1:5555').read().decode())"
    here = here.replace("ray stop; kill", f'python -c "{read}"; ray stop; kill')
    script = tmp_path / "commands.sh"
    ends = "trap 'ray stop > /dev/null 2>&1; kill %1' ERR"  # what goes on keeps this test's pipe open
    safe = "test $(stat -c %a ~/.longthought.env ~/.ray/auth_token | uniq) = 600"
    script.write_text(f"{ends}\n{needs_none}{safe}\n{here}{log}")
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".venv", "runs", ".git", "*_cache"))
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q"], ["add", "README.md"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=checkout, check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "PYTEST", "VIRTUAL"))
    }
    said = subprocess.run(
        ["bash", "-ex", str(script)], cwd=checkout, env={**environment, "HOME": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout[-5000:]
    assert "artifacts:" in said.stdout and "s3://bucket/demo/7_evaluate: generations" in said.stdout
    assert "succeeded" in said.stdout.lower() and "messages" in said.stdout
    assert f'"git_revision": "{commit[:12]}"' in said.stdout
