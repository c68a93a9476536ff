"""The zip that the exercise asks for: its author and its files."""

import io
import os
import re
import subprocess
import zipfile
from pathlib import Path

from run import Failed

LETTERS = r"A-Za-zÀ-ʯΆ-ώЀ-ѷҊ-ӹ\u05b0-\u05f4Ḁ-ῼ"  # those that the report's fonts have
# key: (pattern, the pattern in words, an example)
IDENTITY = {
    "name": (
        rf"(?=.*[^\W\d_])[{LETTERS} .'’-]{{1,80}}",
        "1 to 80 Latin, Greek, Cyrillic or Hebrew letters, spaces and . ' -",
        "Ada Lovelace",
    ),
    "id": (r"[0-9]{5,9}", "5 to 9 digits", "012345678"),
    "user": (r"[a-z][a-z0-9_.-]{1,31}", "2 to 32 of a-z, 0-9, _ . - and a letter first", "ada"),
}
LEFT_OUT = {"data", "html", "build", "__pycache__"}
HIDDEN_BUT_OURS = {".ci", ".github", ".gitignore"}


def fault(identity):
    """What is missing or malformed in {name, id, user}, and how to give it; "" if nothing."""
    for key, (pattern, words, example) in IDENTITY.items():
        if not re.fullmatch(pattern, identity[key]):
            wrong = f"{identity[key]!r} is not allowed" if identity[key] else "is missing"
            return (
                f"{key.upper()} {wrong}: expected {words}. Nothing was written; "
                f'give --{key} "{example}", or {key.upper()}="{example}" to make submission.'
            )
    return ""


def listed(root):
    """The project's files: what git tracks; outside git all that is not hidden, our own hidden files too."""
    if (root / ".git").exists():
        try:
            command = ["git", "ls-files", "-z"]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
            return [Path(name) for name in done.stdout.split("\0") if name]
        except FileNotFoundError:
            pass  # no git here
        except subprocess.CalledProcessError as error:
            cures = [line.strip() for line in error.stderr.splitlines() if "git config" in line]
            reason = (error.stderr.strip() or str(error)).partition("\n")[0]
            cure = " ".join(cures) or "Mend the clone, or clone again."
            raise Failed(f"git cannot list the files ({reason}). {cure}") from None
    paths = [path.relative_to(root) for path in root.rglob("*")]
    return [p for p in paths if not any(part[0] == "." and part not in HIDDEN_BUT_OURS for part in p.parts)]


def packed(root, pdf, identity):
    """The zip as bytes: the project's files, ex2.pdf, and a README that begins with the author."""
    kept = [path for path in listed(root) if LEFT_OUT.isdisjoint(path.parts) and path.suffix != ".zip"]
    kept = [path for path in kept if not path.name.endswith(".json.lock")]
    contents = {path.as_posix(): (root / path).read_bytes() for path in kept if (root / path).is_file()}
    who = "Name: {name}  \nID: {id}  \nCSE username: {user}\n\n".format(**identity)
    contents["README.md"] = who.encode() + contents.get("README.md", b"")
    contents["ex2.pdf"] = contents["report/ex2.pdf"] = pdf  # as the exercise asks; as the README links
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name)  # dated 1980: the same files give the same zip
            entry.external_attr = (0o755 if os.access(root / name, os.X_OK) else 0o644) << 16
            archive.writestr(entry, contents[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
