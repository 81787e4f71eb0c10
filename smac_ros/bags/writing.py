"""What rosbag2's recordings are written with: rosbags' writer, with files that a crash cannot take.

On top of what rosbags does: several files one after another, whose chunks are closed when they are
to be on the disk, and custom data that each file has from its first byte on.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter

VERSION = 9  # of rosbag2's metadata


@dataclass
class Part:
    """One of a recording's files.

    Attributes:
        first, last: times of receipt, ns.
    """

    path: Path
    first: int = 2**63 - 1
    last: int = 0
    count: int = 0

    def describe(self) -> dict[str, Any]:
        """As metadata.yaml has it."""
        first = self.first if self.count else 0
        return {
            "path": self.path.name,
            "starting_time": {"nanoseconds_since_epoch": first},
            "duration": {"nanoseconds": self.last - first if self.count else 0},
            "message_count": self.count,
        }


class Files:
    """What rosbags' ``Writer`` writes to: an mcap file, and another one whenever it is told."""

    def __init__(self, folder: Path, compression: CompressionMode) -> None:
        self._folder, self._compression = folder, compression
        self._types: list[Connection] = []
        self._connections: list[tuple[Connection, str]] = []
        self._closed = 0  # bytes
        self.parts: list[Part] = []
        self._custom: dict[str, str] = {}
        self._open()

    def _open(self) -> None:
        self._file = McapWriter(self._folder, self._compression)
        path = self._folder / f"{self._folder.name}_{len(self.parts)}.mcap"
        self._file.path.rename(path)  # rosbags has one name for all, ROS 2 has numbers
        self._file.path = path
        self.parts.append(Part(path))

    def start(self, custom: dict[str, str]) -> None:
        """Write what every file begins with: topics and custom data."""
        self._custom = custom
        self._file.bio.write(_metadata_record("rosbag2", {"serialized_metadata": self._describe()}))
        self._file.bio.flush()

    def _describe(self) -> str:
        """What rosbag2 keeps in each file, should metadata.yaml be gone."""
        part = self.parts[-1].describe()
        topics = [
            {
                "topic_metadata": {
                    "name": connection.topic,
                    "type": connection.msgtype,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": [],
                    "type_description_hash": connection.digest,
                },
                "message_count": self._file.channel_stats[connection.id],
            }
            for connection, _ in self._connections
        ]
        information = {
            "version": VERSION,
            "storage_identifier": "mcap",
            "relative_file_paths": [part["path"]],
            **{key: part[key] for key in ("starting_time", "duration", "message_count")},
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "files": [part],
            "custom_data": self._custom,
            "ros_distro": "rosbags",
        }
        return yaml.safe_dump(information, sort_keys=False)

    @property
    def path(self) -> Path:
        return self.parts[-1].path

    @property
    def size(self) -> int:
        """Bytes in all files, what waits for ``flush`` not counted."""
        return self._closed + self._file.bio.tell()

    def add_msgtype(self, connection: Connection) -> None:
        self._types.append(connection)
        self._file.add_msgtype(connection)

    def add_connection(self, connection: Connection, offered_qos_profiles: str) -> None:
        self._connections.append((connection, offered_qos_profiles))
        self._file.add_connection(connection, offered_qos_profiles)

    def write(self, connection: Connection, timestamp: int, data: bytes) -> None:
        part = self.parts[-1]
        part.first, part.last = min(part.first, timestamp), max(part.last, timestamp)
        part.count += 1
        self._file.write(connection, timestamp, data)

    def flush(self) -> None:
        """All of it to the disk, so that neither a kill nor a power cut takes it away."""
        if self._file.chunk.msgs:
            self._file.close_chunk()
        self._file.bio.flush()
        os.fdatasync(self._file.bio.fileno())

    def split(self) -> None:
        """Close the file and go on in another."""
        self._file.close(VERSION, self._describe())
        self._closed += self.path.stat().st_size
        self._open()
        for connection in self._types:
            self._file.add_msgtype(connection)
        for connection, qos in self._connections:
            self._file.add_connection(connection, qos)
        self.start(self._custom)

    def close(self, version: int, metadata: str) -> None:
        self._file.close(version, metadata)

    def abort(self) -> None:
        self._file.abort()


class BagWriter(Writer):
    """rosbags' writer with our files."""

    STORAGE_PLUGINS = {StoragePlugin.MCAP: Files}

    def close(self) -> None:
        """Whole, with a metadata.yaml that lists all files."""
        parts = self.storage.parts
        super().close()
        content = yaml.safe_load(self.metapath.read_text(encoding="utf-8"))
        information = content["rosbag2_bagfile_information"]
        information["relative_file_paths"] = [part.path.name for part in parts]
        information["files"] = [part.describe() for part in parts]
        if not information["message_count"]:
            information["starting_time"] = {"nanoseconds_since_epoch": 0}
        new = self.metapath.with_suffix(".yaml.tmp")
        new.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        new.replace(self.metapath)


def _metadata_record(name: str, values: dict[str, str]) -> bytes:
    """A Metadata record of mcap, as rosbag2 writes its own; rosbags does so only at the end."""

    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<I", len(data)) + data

    pairs = b"".join(text(key) + text(value) for key, value in values.items())
    content = text(name) + struct.pack("<I", len(pairs)) + pairs
    return struct.pack("<BQ", 0x0C, len(content)) + content
