"""`python tests/versions.py 2.9.1 2.15.0`: the tests under other releases of torch, each with its own Triton, in an environment of its own.

Not part of the suite: an environment takes some 6 GB and ten minutes. It is kept under --folder and made only once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What depends on torch and Triton: operations on every backend, kernels compiled and interpreted, models, training, compilation.
TESTS = [
    *(
        "attend",
        "attention_weights",
        "backends",
        "composability",
        "edge_logits",
        "gcn_norm",
        "graph",
        "keep_probability",
        "mean_average_distance",
        "message",
        "models",
        "propagate",
    ),
    *(
        "launch",
        "parts",
        "random",
        "sample_edges",
        "sample_from_embeddings",
        "sample_k_edges",
        "sampling",
        "step",
        "train",
        "triton_attention_weights",
        "triton_kernels",
        "triton_ops",
        "triton_sample_k_edges",
    ),
]
CODE = "import torch, sys; print('torch', torch.__version__, 'on Python', sys.version.split()[0], end=' ')"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", help="releases of torch")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/fastst-versions", help="where the environments are kept")
    parser.add_argument("--workers", default="2", help="of pytest")
    options = parser.parse_args()
    failed = [version for version in options.versions if not passes(version, options.folder / version, options.workers)]
    if failed:
        sys.exit(f"failed under torch {', '.join(failed)}")


def passes(version: str, environment: Path, workers: str) -> bool:
    python = environment / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        packages = [f"torch=={version}", "numpy<2.4", "-e", f"{ROOT}[dev]"]  # Triton's interpreter knew no later one before 3.7
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], env={**os.environ, "PIP_CONSTRAINT": os.devnull}, check=True)
    subprocess.run([python, "-c", CODE], check=True)
    subprocess.run([python, "-c", "from importlib.metadata import version; print('and Triton', version('triton'), flush=True)"], check=True)
    files = [f"tests/test_{name}.py" for name in TESTS]
    return subprocess.run([python, "-m", "pytest", "-q", "-n", workers, *files], cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    main()
