"""Messages for errors of the operating system: the path, what is wrong with it, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_LONGEST_PATH = 1000  # characters of a path that a message shows

_MEANINGS = {
    errno.ENAMETOOLONG: "the name is too long for this file system. Choose a shorter name",
    errno.EISDIR: "a folder is where a file must be. Remove or rename the folder",
    errno.EROFS: "the file system is read-only. Name a place that can be written",
    errno.EDQUOT: "your quota on this disk is used up. Free some space, or name a place on another disk",
    errno.EIO: "the disk reports an error. Check the disk, or name a place on another disk",
    errno.ELOOP: "symbolic links lead in a circle. Remove one of them, or name another place",
    errno.ENXIO: "is not a regular file. Name a regular file",
    errno.ESTALE: "the network file system has lost the file. Mount it again",
    errno.ENOTEMPTY: "the folder is not empty. Remove its content, or name another place",
    errno.EMFILE: "this process has too many open files. Raise the limit (`ulimit -n`)",
    errno.ENFILE: "this machine has too many open files. Close some programs",
    errno.EFBIG: "the file would be larger than this file system, or your limit (`ulimit -f`), allows",
    errno.ETXTBSY: "the file is being executed. Name another file",
    errno.EINVAL: "this file system does not allow the name or the operation. Name another place",
}


def describe_os_error(error: OSError, path: Path | str | None = None) -> str:
    """Return a line that names the path of an error, what is wrong with it, and what to do.

    Args:
        path: The path that was meant, if the error does not say which.
    """
    place = error.filename2 or error.filename or path
    if isinstance(place, bytes):
        place = os.fsdecode(place)
    if place is None or isinstance(place, int):
        if error.errno == errno.ENOENT:
            return "the current folder does not exist any more. Change to another folder"
        return error.strerror or str(error) or type(error).__name__
    return f"{_shorten(str(place))}: {_explain(error, Path(str(place)))}"


def is_about_files(error: OSError) -> bool:
    """Return whether an error is about a file or a disk, and not for example about a network connection."""
    return error.filename is not None or error.errno in _WITHOUT_PATH


def file_above(path: Path) -> Path | None:
    """Return the path or the first of its parents that exists, if that is not a folder."""
    for above in (path, *path.parents):
        if _exists(above):
            return None if above.is_dir() else above
    return None


def describe_obstacle(file: Path) -> str:
    """Return a clause for the result of `file_above`."""
    if file.is_symlink() and not _leads_somewhere(file):
        return f"{file} is a link that leads nowhere, and a folder must be there"
    return f"{file} is a file, and a folder must be there"


def _leads_somewhere(link: Path) -> bool:
    try:
        return link.exists()
    except OSError:  # links that lead in a circle
        return False


# Errors of writing to an open file, and of asking for the current folder, name no path.
_WITHOUT_PATH = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENOENT}


def _explain(error: OSError, path: Path) -> str:
    code = error.errno
    if code in (errno.ENOTDIR, errno.EEXIST) or (code == errno.ENOENT and file_above(path) is not None):
        above = file_above(path)
        if above is not None:
            return f"{describe_obstacle(above)}. Remove or rename it, or name another place"
        if code == errno.EEXIST:
            return "exists already. Remove or rename it, or name another place"
        return "a file is where a folder must be. Name another place"
    if code == errno.ENOENT:
        above = next((parent for parent in path.parents if _exists(parent)), None)
        if above is not None and above != path.parent:
            return f"does not exist, and cannot be made in {above}. Name another place"
        return "there is no such file or folder, and it cannot be made there. Check the name"
    if code in (errno.EACCES, errno.EPERM):
        return f"no permission{_describe_owner(path)}. Change the permissions, or name another place"
    if code == errno.ENOSPC:
        return f"{_describe_full_disk(path)}. Free some, or name a place on another disk"
    return _MEANINGS.get(code or 0, error.strerror or str(error))


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def _describe_owner(path: Path) -> str:
    for above in (path, *path.parents):
        try:
            owner = above.stat().st_uid
        except OSError:
            continue
        mine = os.geteuid() if hasattr(os, "geteuid") else owner
        return "" if owner == mine else f" (it belongs to user {owner}, and you are user {mine})"
    return ""


def _describe_full_disk(path: Path) -> str:
    """Say if a disk has no space left, or no inodes."""
    for above in (path, *path.parents):
        try:
            free = os.statvfs(above)
        except OSError:
            continue
        if free.f_files and not free.f_favail:
            return "the disk has no inodes left, which each file needs"
        break
    return "the disk is full"


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_PATH else f"{text[: _LONGEST_PATH // 2]}...{text[-_LONGEST_PATH // 4 :]}"
