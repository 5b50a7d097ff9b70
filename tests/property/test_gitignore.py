"""What `.gitignore` leaves out of a program is what git leaves out: git itself is asked (docs/adr/0001)."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.modules.python.ignore import select

GIT = shutil.which("git")
ATOMS = ["a", "b", "ab", "*", "?", "**", "*.py", "*.log", "a*", "*b", "[ab]", "[!a]", "[a-b].py", "x.py", "\\a"]
NAMES = ["a", "b", "ab", "x.py", "b.py", "a.log"]

patterns = st.builds(
    lambda back, start, parts, end: back + start + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(st.sampled_from(ATOMS), min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "  "]),
)
gitignores = st.lists(patterns, min_size=1, max_size=4).map("\n".join)
paths = st.builds(
    lambda above, name: "/".join([*above, name]),
    st.lists(st.sampled_from(["a", "b", "d"]), max_size=2),
    st.sampled_from(NAMES),
)


def git_takes(files: dict[str, bytes]) -> set[str]:
    """Return the files that git would add."""
    assert GIT is not None
    calm = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": os.devnull}
    with tempfile.TemporaryDirectory() as directory:
        for path, body in files.items():
            target = Path(directory, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)
        subprocess.run([GIT, "init", "-q", directory], check=True, env={**os.environ, **calm})
        listed = subprocess.run(
            [GIT, "-C", directory, "ls-files", "--others", "--exclude-standard", "-z"],
            check=True,
            capture_output=True,
            env={**os.environ, **calm},
        )
    return {path for path in listed.stdout.decode().split("\0") if path and not path.endswith(".gitignore")}


@pytest.mark.skipif(GIT is None and os.environ.get("CI") != "true", reason="git is asked")
@settings(max_examples=30, deadline=None)
@given(files=st.sets(paths, min_size=1, max_size=12), top=gitignores, deeper=st.none() | gitignores)
def test_a_program_holds_the_files_that_git_would_add(files: set[str], top: str, deeper: str | None) -> None:
    tree = {path: b"" for path in files if not any(other.startswith(f"{path}/") for other in files)}
    tree[".gitignore"] = top.encode()
    if deeper is not None and "a" not in tree:
        tree["a/.gitignore"] = deeper.encode()
    assert set(select(tree)) == git_takes(tree)
