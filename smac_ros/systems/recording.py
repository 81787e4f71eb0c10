"""A recording by itself, beside whatever runs."""

import time
from typing import Any

from smac_core.errors import InputError
from smac_ros.systems.arguments import CONTRACT, NAMESPACE
from smac_ros.systems.specification import Argument, NodeSpec, require_new

RECORDING = (
    CONTRACT,
    Argument("out", "", "New folder to write; empty: bags/<contract>_<date>_<time>."),
    Argument("max_size", "1000", "MB, about, of a file; then another; 0: any.", (), "number", 0),
    Argument("disk_left", "500", "MB of the disk to leave; it ends before.", (), "number", 0),
    Argument("compression", "zstd", "Of the files' chunks.", ("zstd", "none")),
    Argument("seconds", "0", "From the first message to the end; 0: no end.", (), "number", 0),
    Argument(
        "use_sim_time", "false", "Take times of receipt from /clock.", ("true", "false"), "boolean"
    ),
    Argument(
        "writer",
        "auto",
        "smac: ours; ros2bag: rosbag2's recorder, without a look at the disk; auto: ours.",
        ("auto", "smac", "ros2bag"),
    ),
    NAMESPACE,
)


def record(values: dict[str, Any]) -> list[NodeSpec]:
    from smac_ros.contract import load_contract

    contract = load_contract(values["contract"])
    require_new("out", values["out"])
    simulated = {"use_sim_time": True} if values["use_sim_time"] else {}
    if values["writer"] != "ros2bag":
        names = ("contract", "out", "max_size", "disk_left", "compression", "seconds")
        parameters = {name: values[name] for name in names}
        return [NodeSpec("recorder_node", "recorder", parameters | simulated, main=True)]
    if values["seconds"]:
        raise InputError("argument", "seconds", f"{values['seconds']:g}", "writer:=smac for it")
    from smac_ros.bags.recording import CONTRACT as KEY
    from smac_ros.bags.recording import MEGABYTE, recorded_topics

    parameters = {
        "record.topics": [topic.name for topic in recorded_topics(contract)],
        "record.disable_keyboard_controls": True,
        "storage.uri": values["out"] or time.strftime(f"bags/{contract.name}_%Y%m%d_%H%M%S"),
        "storage.storage_id": "mcap",
        "storage.storage_preset_profile": "zstd_fast" if values["compression"] == "zstd" else "",
        "storage.max_bagfile_size": round(values["max_size"] * MEGABYTE),
        "storage.custom_data": [f"{KEY}={contract.text}"],
    }
    return [
        NodeSpec(
            "recorder", "recorder", parameters | simulated, package="rosbag2_transport", main=True
        )
    ]
