"""What the first bytes of a file reveal: whether it is what its name says, or an error that was sent in its place."""

import html
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePath

HEAD = 1 << 16
"""The number of bytes that are examined."""

_BLANK = b"\xef\xbb\xbf \t\r\n"
_PAGE = re.compile(rb"[\xef\xbb\xbf\s]*<(!doctype\s+html|html)", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_NOTICE = (
    rb"log[ -]?in|sign[ -]?in|(access|permission) denied|unauthori[sz]ed|forbidden|not found|too many requests|"
    rb"(quota|limit) exceeded|unavailable|internal server error|bad gateway"
)
_REPORTS = {"error", "errors", "message", "msg", "detail", "fault"}
_ZIP = rb"PK(\x03\x04|\x05\x06)"
_PICKLE = rb"\x80[\x02-\x05]|\([dl]p|[\]}]q"  # Python 2 may start a dict or a list in these other ways


def _starts(pattern: bytes) -> Callable[[bytes], object]:
    return re.compile(pattern, re.DOTALL).match


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _is_json(head: bytes) -> bool:
    """Whether `head` is a JSON object or list, or at least starts as one if there is more of the file."""
    if len(head) == HEAD:
        return head.lstrip(_BLANK).startswith((b"{", b"["))
    return isinstance(_parse(head), dict | list)


def _reports_error(head: bytes) -> bool:
    """Whether `head` is a JSON object with an error or a message, not a number, and no other objects or lists."""
    fields = _parse(head)
    if not isinstance(fields, dict):
        return False
    reports = {key for key, value in fields.items() if key.lower() in _REPORTS and type(value) is not int}
    return bool(reports) and not any(isinstance(fields[key], dict | list) for key in fields.keys() - reports)


def _parse(head: bytes) -> object:
    try:
        return json.loads(head)
    except (ValueError, RecursionError):
        return None


ERRORS: dict[str, Callable[[bytes], object]] = {
    "nothing": lambda head: not head.strip(_BLANK),
    "a Git LFS pointer": _starts(rb"version https://(git-lfs|hawser)\.github\.com/"),
    "a web page": _PAGE.match,
    "XML": _starts(rb"[\xef\xbb\xbf\s]*<(\?xml|!|(\w+)\b[^>]*>.*</\2>\s*\Z)"),
    "an error in JSON": _reports_error,
    "an error message": _starts(
        rb"(?i)[\xef\xbb\xbf\s]*(?=\w)[^\0-\x1f]{0,500}\b(" + _NOTICE + rb")\b[^\0-\x1f]{0,500}\s*\Z"
    ),
}
"""What a server may send in place of a file, and how it is recognised."""

KINDS: dict[str, Callable[[bytes], object]] = {
    ".zip": _starts(_ZIP),
    ".npz": _starts(_ZIP),
    ".tar": _is_tar,
    ".tgz": _starts(rb"\x1f\x8b"),
    ".gz": _starts(rb"\x1f\x8b"),
    ".json": _is_json,
    ".txt": lambda head: b"\0" not in head,
    ".safetensors": _starts(rb".{4}\0{4}\{"),
    ".pth": _starts(_ZIP + rb"|" + _PICKLE),
    ".pt": _starts(_ZIP + rb"|" + _PICKLE),
    ".bin": _starts(_ZIP + rb"|" + _PICKLE),
    ".p": _starts(_PICKLE),
}
"""How a file starts, by the suffix of its name. A file with another suffix only must not be one of the `ERRORS`."""


def refuse_page(head: bytes) -> None:
    """Raise ValueError if `head`, the first bytes of a file, is the start of a web page."""
    if _PAGE.match(head):
        raise ValueError(describe_page(head))


def refuse_other(path: Path, name: str) -> None:
    """Raise ValueError if the file at `path` is an error, or does not start as a file called `name` does."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    suffix = PurePath(name).suffix.lower()
    found = next((error for error, is_it in ERRORS.items() if is_it(head)), None)
    if found or not KINDS.get(suffix, bool)(head):
        start = _title(head) or " ".join(head[:80].decode(errors="ignore").split())
        quote = f" ({''.join(filter(str.isprintable, start))})" if start else ""
        expected = f"a {suffix} file" if suffix else "the file"
        raise ValueError(
            f"{path} holds {found or 'something else'} instead of {expected}{quote}; "
            "if that is right, add its checksum to the catalogue"
        )


def describe_page(page: bytes) -> str:
    """The reason to refuse a web page, with its title."""
    title = _title(page)
    return "received a web page instead of the file" + (f" ({title})" if title else "")


def _title(page: bytes) -> str:
    title = _TITLE.search(page)
    return " ".join(html.unescape(title[1].decode(errors="replace")).split()) if title else ""
