"""Which files belong to a recording, and what its metadata.yaml says of them."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from smac_core.errors import InputError

METADATA = "metadata.yaml"
_PACKED = (".zstd", ".zst")
_BEGINNINGS = {b"\x89MCAP0\r\n": ".mcap", b"SQLite format 3\0": ".db3"}


class FileTimes(NamedTuple):
    """When the messages of a file were received, ns."""

    start: int
    stop: int


class Description(NamedTuple):
    """What metadata.yaml says.

    Attributes:
        files: names; None where nothing is said of their times.
        topics: (name, type, encoding, how many messages).
        start, stop: times of receipt of the first and the last message, ns; 0 without messages.
        packed_messages: whether each message is compressed.
    """

    files: dict[str, FileTimes | None]
    topics: list[tuple[str, str, str, int]]
    count: int
    start: int
    stop: int
    custom: dict[str, str]
    packed_messages: bool


def read_description(text: str, source: str | Path) -> Description:
    """What rosbag2's metadata says, of any version.

    Raises:
        InputError: it is not what rosbag2 writes.
    """
    try:
        content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        content = content.get("rosbag2_bagfile_information", content)
        count = int(content["message_count"])
        start = int(content["starting_time"]["nanoseconds_since_epoch"]) if count else 0
        topics = []
        for topic in content["topics_with_message_count"]:
            about = topic["topic_metadata"]
            encoding = about.get("serialization_format", "cdr")
            topics.append((about["name"], about["type"], encoding, int(topic["message_count"])))
        files: dict[str, FileTimes | None] = {
            PurePosixPath(name).name: None for name in content["relative_file_paths"]
        }
        for file in content.get("files") or ():
            name = PurePosixPath(file["path"]).name
            if name in files and file["message_count"]:
                first = int(file["starting_time"]["nanoseconds_since_epoch"])
                files[name] = FileTimes(first, first + int(file["duration"]["nanoseconds"]))
        return Description(
            files,
            topics,
            count,
            start,
            start + int(content["duration"]["nanoseconds"]) if count else 0,
            {str(key): str(value) for key, value in (content.get("custom_data") or {}).items()},
            str(content.get("compression_mode") or "").lower() == "message",
        )
    except yaml.YAMLError as error:
        found: Any = " ".join(str(error).split())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
    raise InputError(source, "metadata", found, "what rosbag2 writes")


def storage_of(path: Path) -> str | None:
    """ ".mcap" or ".db3" by a file's name, also with .zstd behind it; None for others."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in _PACKED]
    return suffixes[-1] if suffixes and suffixes[-1] in _BEGINNINGS.values() else None


def is_packed(path: Path) -> bool:
    """Whether the file as a whole is compressed, by its name."""
    return path.suffix in _PACKED


def files_in(folder: Path) -> list[Path]:
    """Storage files that lie in a folder itself, in the order of their numbers."""
    return sorted((path for path in folder.iterdir() if storage_of(path)), key=_by_number)


def require_recording(path: Path) -> None:
    """Raise InputError for what is no recording of ROS 2, with what to do."""
    if path.is_dir():
        if (path / METADATA).is_file() or files_in(path):
            return
        if ros1 := sorted(path.glob("*.bag")):
            raise _of_ros1(ros1[0])
        inner = _below(path)
        found = f"a folder of {len(inner)} recordings, {inner[0].name} first" if inner else "none"
        raise InputError(path, "recording", found, f"one folder with {METADATA}, .mcap or .db3")
    if not path.exists():
        raise InputError(path, "recording", "nothing", "a rosbag2 folder, .mcap or .db3 file")
    with path.open("rb") as file:
        beginning = file.read(16)
    if beginning.startswith(b"#ROSBAG") or path.suffix == ".bag":
        raise _of_ros1(path)
    if storage_of(path) is None:
        raise InputError(path, "file", f"a {path.suffix or 'nameless'} file", ".mcap or .db3")


def find_bags(paths: Iterable[str | Path]) -> list[Path]:
    """Recordings: those given, and those in folders given; each once.

    Files in a folder without metadata.yaml are one recording when their names differ only in a
    number, as rosbag2 splits them; else each is one.

    Raises:
        InputError: a path that is none and has none below it.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        inner = _below(path) if path.is_dir() else [path]
        if not inner:
            require_recording(path)
        for one in inner:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _below(folder: Path) -> list[Path]:
    if (folder / METADATA).is_file():
        return [folder]
    files = files_in(folder)
    one = len(files) > 1 and len({re.sub(r"_\d+(?=\.)", "", path.name) for path in files}) == 1
    folders = sorted((path for path in folder.iterdir() if path.is_dir()), key=_by_number)
    return ([folder] if one else files) + [path for inner in folders for path in _below(inner)]


def _by_number(path: Path) -> list[object]:
    """So that bag_10 comes behind bag_9."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if part.isdigit() else part for part in parts]


def _of_ros1(path: Path) -> InputError:
    convert = f"rosbags-convert --src {path} --dst {path.with_suffix('')}"
    return InputError(path, "format", "a recording of ROS 1", f"one of ROS 2: {convert}")
