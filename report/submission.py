"""The zip that the exercise asks for: who hands in, and which files."""

import io
import os
import re
import subprocess
import zipfile
from pathlib import Path

# key: (accepts a value, in words, an example)
IDENTITY = {
    "name": (
        lambda text: text.isprintable() and any(map(str.isalpha, text)) and len(text) <= 80,
        "a name of 1 to 80 printable characters",
        "Ada Lovelace",
    ),
    "id": (re.compile(r"[0-9]{5,9}").fullmatch, "5 to 9 digits", "012345678"),
    "user": (
        re.compile(r"[a-z][a-z0-9_.-]{1,31}").fullmatch,
        "a CSE username: 2 to 32 of a-z, 0-9, _ . - and a letter first",
        "ada",
    ),
}
LEFT_OUT = {".git", ".venv", "data", "html", "build", "__pycache__", ".ipynb_checkpoints"}
LEFT_OUT |= {".pytest_cache", ".ruff_cache", ".hypothesis", ".coverage", "ex2.pdf"}


class IdentityError(ValueError):
    """A value that is missing or malformed; the message says what is allowed and how to give it."""


def checked(identity):
    """The identity itself, {name, id, user} as str; raises IdentityError."""
    for key, (accepts, words, example) in IDENTITY.items():
        value = identity[key]
        if not accepts(value):
            fault = f"{value!r} is not allowed" if value else "is missing"
            raise IdentityError(
                f"{key.upper()} {fault}: expected {words}. Nothing was written; give it as "
                f'--{key} "{example}", or {key.upper()}="{example}" to make submission.'
            )
    return identity


def files(root):
    """What is handed in, relative to root: the tracked files, or outside git all but data and caches."""
    if (root / ".git").exists():
        listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], check=True, capture_output=True)
        paths = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = []
        for folder, inner, names in os.walk(root):
            inner[:] = [name for name in inner if name not in LEFT_OUT]
            paths += [(Path(folder) / name).relative_to(root) for name in names]
    return [
        path
        for path in paths
        if LEFT_OUT.isdisjoint(path.parts) and path.suffix not in (".zip", ".pyc") and (root / path).is_file()
    ]


def packed(root, pdf, identity):
    """The zip as bytes: code, checkpoints, ex2.pdf (bytes, given) and a README that names who hands in."""
    who = "Name: {name}  \nID: {id}  \nCSE username: {user}\n\n".format(**identity)
    contents = {path.as_posix(): (root / path).read_bytes() for path in files(root)}
    contents["README.md"] = who.encode() + contents.get("README.md", b"")
    contents["ex2.pdf"] = pdf
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name)  # dated 1980: the same files give the same zip
            entry.external_attr = (0o755 if os.access(root / name, os.X_OK) else 0o644) << 16
            archive.writestr(entry, contents[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
