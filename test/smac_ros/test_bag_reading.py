"""Recordings of every layout give the same messages, and damaged ones what is before the damage."""

import shutil
import sqlite3
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from recordings import STORE, TEXT, McapBytes, joints, qos, samples, text, write
from rosbags.rosbag2 import CompressionMode, Reader, StoragePlugin, Writer

from smac_core.errors import InputError
from smac_ros.bags.compression import zstd
from smac_ros.bags.reading import Bag, find_bags

SAMPLES = samples(60)
STORAGES = ("mcap", "sqlite3")
ZSTD, LZ4 = ("zstd", zstd.compress), ("lz4", lz4.frame.compress)


def read(path: Path, topics=("/a", "/b"), **limits) -> tuple[list, Bag]:
    """A recording's messages, and the closed recording with its notes."""
    with Bag(path) as bag:
        return list(bag.messages(topics, **limits)), bag


def chunked(content, size=20):
    return [content[place : place + size] for place in range(0, len(content), size)]


def mcap_file(path: Path, *arguments, **options) -> Path:
    path.write_bytes(McapBytes(*arguments, **options).data)
    return path


class TestWholeRecordings:
    @pytest.mark.parametrize(
        ("storage", "mode"),
        [
            *((storage, mode) for storage in STORAGES for mode in ("NONE", "FILE", "MESSAGE")),
            ("mcap", "STORAGE"),
        ],
    )
    def test_compressed_or_not(self, tmp_path, storage, mode):
        path = write(tmp_path / "bag", SAMPLES, storage, CompressionMode[mode], custom={"k": "v"})
        before = {file: file.read_bytes() for file in path.iterdir()}
        found, bag = read(path)
        assert found == SAMPLES
        assert bag.notes == []
        assert [(t.name, t.count, t.known) for t in bag.topics.values()] == [
            ("/a", 30, True),
            ("/b", 30, True),
        ]
        assert (bag.message_count, bag.start, bag.stop) == (60, SAMPLES[0][1], SAMPLES[-1][1])
        assert bag.duration == pytest.approx(0.59)
        assert bag.custom == {"k": "v"}
        with Bag(path) as again:  # a second way through, and what is asked for only
            assert list(again.messages(["/b", "/nothing"])) == SAMPLES[1::2]
            times = np.concatenate([t for topic, t in again.times() if topic == "/a"])
            assert times.tolist() == [time for _, time, _ in SAMPLES[::2]]
            limits = SAMPLES[10][1], SAMPLES[20][1]
            assert list(again.messages(["/a", "/b"], *limits)) == SAMPLES[10:20]
        assert {file: file.read_bytes() for file in path.iterdir()} == before

    @pytest.mark.parametrize("storage", STORAGES)
    def test_the_same_as_the_library(self, tmp_path, storage):
        late = [SAMPLES[i] for i in np.random.default_rng(0).permutation(60)]
        path = write(tmp_path / "bag", late, storage)
        with Reader(path) as reader:
            expected = [(c.topic, time, bytes(raw)) for c, time, raw in reader.messages()]
        assert read(path)[0] == expected == SAMPLES

    @pytest.mark.parametrize("pack", [("", bytes), ZSTD, LZ4, None])
    @pytest.mark.parametrize("indexed", [True, False])
    def test_mcap_of_other_recorders(self, tmp_path, pack, indexed):
        """In or outside of chunks, with and without an index, out of order across chunks."""
        order = [*SAMPLES[20:45], *SAMPLES[:20], *SAMPLES[45:]]
        path = mcap_file(tmp_path / "one.mcap", chunked(order), pack, indexed=indexed)
        found, bag = read(path)
        assert found == SAMPLES
        assert bag.notes == []
        assert (bag.message_count, bag.start, bag.stop) == (60, SAMPLES[0][1], SAMPLES[-1][1])
        with Bag(path) as again:
            assert sum(len(times) for _, times in again.times()) == 60

    def test_equal_times_keep_their_order(self, tmp_path):
        same = [("/a", 5, joints(number, [number])) for number in range(10)]
        for storage in STORAGES:
            assert read(write(tmp_path / storage, same, storage))[0] == same
        assert read(mcap_file(tmp_path / "one.mcap", chunked(same, 3)))[0] == same

    @pytest.mark.parametrize("storage", STORAGES)
    def test_little_is_held_at_once(self, tmp_path, storage):
        large = [("/a", number, bytes(400_000)) for number in range(60)]
        with Bag(write(tmp_path / "bag", large, storage)) as bag:
            sizes = [sum(len(data) for *_, data in batch) for batch in bag.batches(["/a"])]
        assert sum(sizes) == 60 * 400_000
        assert max(sizes) < 5_000_000

    @pytest.mark.parametrize("storage", STORAGES)
    def test_split_into_files(self, tmp_path, storage):
        """Their times overlap; without metadata.yaml they are found all the same."""
        parts = [SAMPLES[:25:2] + SAMPLES[25:30], SAMPLES[1:25:2] + SAMPLES[30:40], SAMPLES[40:]]
        folder = tmp_path / "split"
        folder.mkdir()
        for number, part in enumerate(parts):
            made = write(tmp_path / str(number), part, storage)
            file = next(path for path in made.iterdir() if path.suffix != ".yaml")
            shutil.move(file, folder / f"split_{8 + number}{file.suffix}")
        found, bag = read(folder)
        assert found == SAMPLES
        assert [note for note in bag.notes if "metadata.yaml" not in note] == []
        assert bag.topics["/a"].count == 30

    @pytest.mark.parametrize("storage", STORAGES)
    def test_two_publishers_of_a_topic(self, tmp_path, storage):
        writer = Writer(tmp_path / "bag", version=9, storage_plugin=_plugin(storage))
        with writer:
            publishers = [_connect(writer, "/a", depth) for depth in (1, 10)]
            for number, (_, time, data) in enumerate(SAMPLES[::2]):
                writer.write(publishers[number % 2], time, data)
        found, bag = read(tmp_path / "bag")
        assert found == SAMPLES[::2]
        assert bag.topics["/a"].count == 30
        assert "different QoS" in bag.notes[0]

    @pytest.mark.parametrize("storage", STORAGES)
    def test_two_types_on_a_topic(self, tmp_path, storage):
        writer = Writer(tmp_path / "bag", version=9, storage_plugin=_plugin(storage))
        with writer:
            _connect(writer, "/a", 1)
            writer.write(_connect(writer, "/a", 1, TEXT), 1, text("x"))
            writer.write(_connect(writer, "/b", 1), 2, SAMPLES[0][2])
        found, bag = read(tmp_path / "bag", ["/b"])
        assert len(found) == 1
        assert any("/a: messages of" in note for note in bag.notes)
        assert not bag.topics["/a"].known
        with pytest.raises(InputError, match="sensor_msgs/msg/JointState and of std_msgs"):
            read(tmp_path / "bag", ["/a"])

    def test_of_the_first_rosbag2(self, tmp_path):
        """No QoS, no definitions, short type names, files named with their folder."""
        path = tmp_path / "old"
        path.mkdir()
        database = sqlite3.connect(path / "old_0.db3")
        database.executescript(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
            "serialization_format TEXT NOT NULL);"
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, "
            "timestamp INTEGER NOT NULL, data BLOB NOT NULL);"
            "INSERT INTO topics VALUES (7, '/a', 'sensor_msgs/JointState', 'cdr'),"
            "(9, '/silent', 'std_msgs/String', 'cdr')"
        )
        rows = [(7, time, data) for _, time, data in SAMPLES[::2]]
        database.executemany("INSERT INTO messages VALUES (NULL, ?, ?, ?)", rows)
        database.commit()
        database.close()
        topics = "".join(
            f"  - topic_metadata: {{name: {name}, type: {kind}, serialization_format: cdr}}\n"
            f"    message_count: {count}\n"
            for name, kind, count in (
                ("/a", "sensor_msgs/JointState", 30),
                ("/silent", "std_msgs/String", 0),
            )
        )
        (path / "metadata.yaml").write_text(
            "rosbag2_bagfile_information:\n  version: 1\n  storage_identifier: sqlite3\n"
            "  relative_file_paths: [old/old_0.db3]\n  duration: {nanoseconds: 580000000}\n"
            f"  starting_time: {{nanoseconds_since_epoch: {SAMPLES[0][1]}}}\n"
            f"  message_count: 30\n  topics_with_message_count:\n{topics}"
        )
        found, bag = read(path)
        assert found == SAMPLES[::2]
        assert bag.notes == []
        assert bag.topics["/a"].type == "sensor_msgs/msg/JointState"
        assert (bag.topics["/silent"].count, bag.stop) == (0, SAMPLES[58][1])

    @pytest.mark.parametrize("storage", STORAGES)
    def test_topics_without_messages(self, tmp_path, storage):
        with Writer(tmp_path / "bag", version=9, storage_plugin=_plugin(storage)) as writer:
            _connect(writer, "/a", 1)
        for _ in range(2):
            found, bag = read(tmp_path / "bag")
            assert found == []
            assert (bag.topics["/a"].count, bag.start, bag.stop, bag.duration) == (0, 0, 0, 0.0)
            assert bag.notes[-1] == "there are no messages in it"
            (tmp_path / "bag" / "metadata.yaml").unlink(missing_ok=True)

    @pytest.mark.parametrize("storage", STORAGES)
    def test_nothing_recorded(self, tmp_path, storage):
        found, bag = read(write(tmp_path / "bag", [], storage))
        assert (found, bag.topics, bag.duration, bag.start) == ([], {}, 0.0, 0)
        assert "there are no messages in it" in bag.notes

    def test_types(self, tmp_path):
        """An unknown one is noted; the contract's has to be the same, its definition too."""
        types = {"/b": "my_robot/msg/Strange"}
        path = mcap_file(tmp_path / "one.mcap", [SAMPLES], types=types)
        with Bag(path) as bag:
            assert bag.topics["/a"].known and not bag.topics["/b"].known
            assert bag.notes == [
                "/b: the type my_robot/msg/Strange is not known here; it is skipped"
            ]
            bag.require_type("/a", "sensor_msgs/msg/JointState")
            with pytest.raises(InputError, match="found sensor_msgs/msg/JointState"):
                bag.require_type("/a", TEXT)
        data = path.read_bytes().replace(b"float64[] velocity", b"float32[] velocity")
        path.write_bytes(data)
        with Bag(path) as bag, pytest.raises(InputError, match="float32 velocity"):
            list(bag.messages(["/a"]))

    def test_messages_that_are_no_cdr(self, tmp_path):
        path = mcap_file(tmp_path / "one.mcap", [SAMPLES], encoding="json")
        with Bag(path) as bag, pytest.raises(InputError, match="encoded as json"):
            list(bag.messages(["/a"]))


class TestWithoutMetadata:
    @pytest.mark.parametrize("mode", ["NONE", "FILE", "MESSAGE"])
    @pytest.mark.parametrize("storage", STORAGES)
    def test_found_in_the_files(self, tmp_path, storage, mode):
        path = write(tmp_path / "bag", SAMPLES, storage, CompressionMode[mode], custom={"k": "v"})
        (path / "metadata.yaml").unlink()
        found, bag = read(path)
        assert found == SAMPLES
        assert bag.notes == ["no metadata.yaml: what is in it was found in the files themselves"]
        assert (bag.message_count, bag.start, bag.stop) == (60, SAMPLES[0][1], SAMPLES[-1][1])
        assert bag.custom == {"k": "v"}
        assert [path.name for path in path.iterdir()] == [next(path.iterdir()).name]

    @pytest.mark.parametrize("storage", STORAGES)
    def test_single_file(self, tmp_path, storage):
        folder = write(tmp_path / "bag", SAMPLES, storage)
        found, bag = read(next(path for path in folder.iterdir() if path.suffix != ".yaml"))
        assert found == SAMPLES
        assert bag.notes == []

    @pytest.mark.parametrize("content", ["", "a: [", "rosbag2_bagfile_information: {version: 9}"])
    def test_damaged_metadata(self, tmp_path, content):
        path = write(tmp_path / "bag", SAMPLES)
        (path / "metadata.yaml").write_text(content)
        found, bag = read(path)
        assert found == SAMPLES
        assert "metadata.yaml is damaged and not used" in bag.notes[0]

    def test_metadata_that_lists_other_files(self, tmp_path):
        path = write(tmp_path / "bag", SAMPLES)
        metadata = (path / "metadata.yaml").read_text()
        listed = metadata.replace("  - bag.mcap\n", "  - bag.mcap\n  - bag_1.mcap\n")
        assert listed != metadata
        (path / "metadata.yaml").write_text(listed)
        shutil.copy(path / "bag.mcap", path / "copy.mcap")
        found, bag = read(path)
        assert found == SAMPLES
        assert [note.split(":")[0] for note in bag.notes] == [
            "bag_1.mcap is missing",
            "copy.mcap is not in metadata.yaml and not read; it can be given on its own",
        ]


    def test_files_that_were_renamed_or_lost(self, tmp_path):
        path = write(tmp_path / "bag", SAMPLES)
        (path / "bag.mcap").rename(path / "monday.mcap")
        found, bag = read(path)
        assert found == SAMPLES
        assert bag.notes == ["metadata.yaml lists none of the files that are there and is not used"]
        (path / "monday.mcap").unlink()
        with pytest.raises(InputError, match="files: found none; expected bag.mcap"):
            Bag(path)


class TestDamage:
    @pytest.mark.parametrize("pack", [("", bytes), ZSTD, LZ4, None])
    @pytest.mark.parametrize("indexed", [True, False])
    def test_mcap_cut_off_anywhere(self, tmp_path, pack, indexed):
        """Whatever is left begins like the whole, and what has been written is lost nowhere."""
        whole = McapBytes(chunked(SAMPLES), pack, indexed=indexed)
        behind = [*whole.chunk_places[1:], len(whole.data)] if pack else []
        path = tmp_path / "cut.mcap"
        for size in np.linspace(400, len(whole.data) - 1, 40).astype(int).tolist():
            path.write_bytes(whole.data[:size])
            found, bag = read(path)
            assert found == SAMPLES[: len(found)]
            assert bag.message_count == len(found)
            assert "broken off" in bag.notes[0]
            complete = 20 * sum(size >= place for place in behind)
            assert len(found) >= complete
            if pack is None or not pack[0]:  # also of the last chunk, message by message
                assert len(found) > (size - 400) // 300 - 10

    def test_mcap_of_a_recorder_that_was_killed(self, tmp_path):
        """As rosbags leaves it without ``close``: chunks, and no metadata.yaml."""
        path, many = tmp_path / "bag", samples(9000)
        writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.open()
        connections = {topic: _connect(writer, topic, 1) for topic in ("/a", "/b")}
        for topic, time, data in many:
            writer.write(connections[topic], time, data)
        writer.storage.bio.close()
        found, bag = read(path)
        assert len(found) > 4000
        assert found == many[: len(found)]
        assert bag.notes[1].startswith("bag.mcap: broken off at byte")

    @pytest.mark.parametrize("storage", STORAGES)
    def test_a_last_file_with_nothing_in_it(self, tmp_path, storage):
        """Of a recorder that was killed when it had just begun another file."""
        path = write(tmp_path / "bag", SAMPLES, storage)
        (path / "metadata.yaml").unlink()
        file = next(path.iterdir())
        (path / f"bag_1{file.suffix}").write_bytes(b"")
        found, bag = read(path)
        assert found == SAMPLES
        assert bag.notes[-1] == f"bag_1{file.suffix}: not read, file: found 0 bytes"
        file.write_bytes(b"")
        with pytest.raises(InputError, match="one that can be read"):
            Bag(path)

    def test_a_damaged_chunk_in_the_middle_costs_itself_only(self, tmp_path):
        whole = McapBytes(chunked(SAMPLES), ZSTD)
        data = bytearray(whole.data)
        place = (whole.chunk_places[1] + whole.chunk_places[2]) // 2 - 200
        data[place : place + 4] = b"\0\0\0\0"
        (tmp_path / "one.mcap").write_bytes(data)
        found, bag = read(tmp_path / "one.mcap")
        assert found == SAMPLES[:20] + SAMPLES[40:]
        assert "is damaged" in bag.notes[0] and len(bag.notes) == 1

    def test_a_damaged_index_is_not_used(self, tmp_path):
        whole = McapBytes(chunked(SAMPLES))
        data = bytearray(whole.data)
        data[-60] ^= 1  # a topic's number of messages
        (tmp_path / "one.mcap").write_bytes(data)
        found, bag = read(tmp_path / "one.mcap")
        assert found == SAMPLES
        assert bag.notes == ["one.mcap: its index is damaged and not used"]

    def test_sqlite_cut_off(self, tmp_path):
        many = samples(3000)
        path = write(tmp_path / "bag", many, "sqlite3")
        file = path / "bag.db3"
        data = file.read_bytes()
        last = 0
        for share in (0.3, 0.6, 0.95):
            file.write_bytes(data[: int(share * len(data))])
            found, bag = read(path)
            assert found == many[: len(found)]
            assert share - 0.2 < len(found) / 3000 <= share + 0.1
            assert len(found) > last
            last = len(found)
            assert "broken off" in bag.notes[0]
            assert bag.message_count == len(found)
            with Bag(path) as again:
                assert sum(len(times) for _, times in again.times()) == len(found)
            assert file.stat().st_size == int(share * len(data))

    def test_sqlite_with_a_damaged_page(self, tmp_path):
        many = samples(3000)
        path = write(tmp_path / "bag", many, "sqlite3")
        data = bytearray((path / "bag.db3").read_bytes())
        page = len(data) // 2 // 4096 * 4096
        data[page : page + 4096] = b"\xff" * 4096
        (path / "bag.db3").write_bytes(data)
        for note in ("reading stopped after", "broken off or damaged"):
            found, bag = read(path)
            assert found == many[: len(found)] and 1000 < len(found) < 2000
            assert note in bag.notes[-1]
            (path / "metadata.yaml").unlink(missing_ok=True)  # then it is found when it is opened

    def test_sqlite_that_a_recorder_still_writes(self, tmp_path):
        """Rows that are in the journal only are read, and nothing beside the file is touched."""
        path = write(tmp_path / "bag", SAMPLES[:40], "sqlite3")
        (path / "metadata.yaml").unlink()
        database = sqlite3.connect(path / "bag.db3")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA wal_autocheckpoint=0")
        rows = [(1 if topic == "/a" else 2, *others) for topic, *others in SAMPLES[40:]]
        insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)"
        database.executemany(insert, rows)
        database.commit()
        before = {file: file.read_bytes() for file in path.iterdir()}
        assert any(name.name.endswith("-wal") for name in before)
        found, bag = read(path)
        assert found == SAMPLES
        assert any("bag.db3-wal" in note for note in bag.notes)
        assert {file: file.read_bytes() for file in path.iterdir()} == before
        database.close()

    def test_compressed_file_cut_off(self, tmp_path):
        many = samples(9000)
        path = write(tmp_path / "bag", many, "mcap", CompressionMode.FILE)
        file = path / "bag.mcap.zstd"
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
        found, bag = read(path)
        assert len(found) > 3000 and found == many[: len(found)]
        assert any("broken off" in note for note in bag.notes)


class TestWhatIsNoRecording:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("old.bag", b"#ROSBAG V2.0\n", "rosbags-convert --src .*old.bag --dst .*old"),
            ("empty.mcap", b"", "found 0 bytes"),
            ("other.mcap", b"something else", "an MCAP file"),
            ("other.db3", b"something else" * 100, "an SQLite file of rosbag2"),
            ("empty.db3", b"", "found 0 bytes"),
            ("head.db3", b"SQLite format 3\0" + bytes([16, 0]) * 100, "found none"),
            ("data.csv", b"1,2", "found a .csv file"),
        ],
    )
    def test_files(self, tmp_path, name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            Bag(tmp_path / name)

    def test_folders(self, tmp_path):
        with pytest.raises(InputError, match="found nothing"):
            Bag(tmp_path / "absent")
        with pytest.raises(InputError, match="found none"):
            Bag(tmp_path)
        with pytest.raises(InputError, match="found none"):
            find_bags([tmp_path])
        write(tmp_path / "bag", SAMPLES[:2])
        with pytest.raises(InputError, match="a folder of 1 recordings"):
            Bag(tmp_path)


def test_folders_of_recordings(tmp_path):
    for name in ("bag_10", "bag_9", "inner/bag"):
        write(tmp_path / name, SAMPLES[:2])
    (tmp_path / "singles").mkdir()
    for name in ("x.mcap", "y.mcap"):
        mcap_file(tmp_path / "singles" / name, [SAMPLES])
    (tmp_path / "split").mkdir()
    for name in ("run_0.mcap", "run_1.mcap"):
        mcap_file(tmp_path / "split" / name, [SAMPLES])
    found = find_bags([tmp_path, tmp_path / "bag_9"])
    names = ["bag_9", "bag_10", "inner/bag", "singles/x.mcap", "singles/y.mcap", "split"]
    assert [str(path.relative_to(tmp_path)) for path in found] == names


def _plugin(storage: str) -> StoragePlugin:
    return {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]


def _connect(writer: Writer, topic: str, depth: int, kind="sensor_msgs/msg/JointState"):
    return writer.add_connection(topic, kind, typestore=STORE, offered_qos_profiles=[qos(depth)])
