"""``smac bag info`` and ``smac bench bags``: told as data and as a user sees it."""

import json

import pytest
from recordings import JOINTS, SECOND, TEXT, joints, text, write

from smac_ros.bags.info import describe, show
from smac_ros.bags.reading import CONTRACT, Bag
from smac_ros.bags.topics import Names
from smac_ros.contract import Contract

pytest_plugins = ["point_mass_run"]  # the fixtures smac and smac_here

TEXT_OF_CONTRACT = f"""
name: two_joints
domain: two_joints
rate: 100.0
trigger: timer
watchdog: 1.0
safety: zeros
observations:
- {{topic: arm, type: {JOINTS}, time: header, align: hold, max_age: 1.0, fields: [
    {{path: "position[j0]", names: [p0], unit: rad}}]}}
- {{topic: tool, type: {JOINTS}, time: header, align: as_of, max_age: 1.0, missing: 0.0, fields: [
    {{path: "position[j0]", names: [t0], unit: rad}}]}}
actions:
- {{topic: command, type: {JOINTS}, fields: [
    {{path: "velocity[j0]", names: [v0], unit: rad/s, limits: [-1, 1]}}]}}
"""
START = 1_700_000_000 * SECOND


def robot(*missing: str, name: str = ""):
    """Two seconds at 100 Hz with a silence of half a second, and a marker."""
    for number in range(200):
        stamp = START + number * SECOND // 100 + (number >= 120) * SECOND // 2
        for topic in {"arm", "command"} - set(missing):
            yield f"{name}/{topic}", stamp, joints(stamp, [number])
    yield f"{name}/episode", START + 3 * SECOND, text("{}")


@pytest.fixture
def contract() -> Contract:
    return Contract.from_text(TEXT_OF_CONTRACT, "two_joints.yaml")


def told(path, *arguments) -> dict:
    with Bag(path) as bag:
        return describe(bag, *arguments)


def test_topics_rates_and_gaps(tmp_path, capsys):
    path = write(tmp_path / "bag", robot(), types={"/episode": TEXT})
    content = told(path)
    topics = {topic.pop("name"): topic for topic in content["topics"]}
    assert topics["/arm"] == {
        "type": JOINTS,
        "count": 200,
        "known": True,
        "rate": pytest.approx(100.0),
        "gaps": 1,
        "longest_gap": pytest.approx(0.51),
    }
    assert topics["/episode"]["rate"] is None
    assert (content["messages"], content["duration"]) == (401, 3.0)
    assert content["bytes"] == (path / "bag.mcap").stat().st_size
    show(told(path))
    shown = capsys.readouterr().out
    assert "401 messages" in shown.replace("\n", " ") and "0.51 s" in shown
    assert "2023-11-14" in shown


def test_beside_a_contract(tmp_path, contract, capsys):
    custom = {CONTRACT: TEXT_OF_CONTRACT}
    path = write(tmp_path / "bag", robot(), types={"/episode": TEXT}, custom=custom)
    content = told(path, contract)
    found = content["contract"]
    assert found["complete"] and found["agrees"]
    assert {row["topic"]: row["problem"] for row in found["topics"]} == {
        "arm": "",
        "tool": "missing",
        "command": "",
        "episode": "",
        "terminated": "",
    }
    show(content)
    shown = capsys.readouterr().out
    assert "all that it needs is there" in shown and "missing (not needed)" in shown


def test_beside_another_contract(tmp_path, contract, capsys):
    other = TEXT_OF_CONTRACT.replace("unit: rad/s", "unit: rad")
    types = {"/episode": TEXT, "/command": TEXT}
    path = write(tmp_path / "bag", robot("arm"), types=types, custom={CONTRACT: other})
    found = told(path, contract)["contract"]
    assert not found["complete"] and found["agrees"] is False
    assert "actions unit[0]: found 'rad'" in found["difference"]
    problems = {row["topic"]: row["problem"] for row in found["topics"]}
    assert problems["arm"] == "missing"
    assert f"found {TEXT}" in problems["command"]
    show(told(path, contract))
    assert "it needs more than is there" in capsys.readouterr().out


def test_a_robot_with_a_namespace(tmp_path, contract):
    path = write(tmp_path / "bag", robot(name="/r1"), types={"/r1/episode": TEXT})
    found = told(path, contract, Names("r1"))["contract"]
    assert found["complete"] and found["agrees"] is None
    assert [row["name"] for row in found["topics"]] == [
        *("/r1/arm", None, "/r1/command", "/r1/episode", None),
    ]


def test_as_a_user_runs_it(tmp_path, smac_here):
    """A folder of recordings, of which one cannot be read: the others are told all the same."""
    write(tmp_path / "good", robot(), types={"/episode": TEXT})
    (tmp_path / "bad.mcap").write_bytes(b"")
    done = smac_here("bag", "info", tmp_path, "--json", check=False)
    assert done.returncode != 0
    assert "bad.mcap: file: found 0 bytes; expected an MCAP file" in done.stderr
    bad, good = json.loads(done.stdout)
    assert "found 0 bytes" in bad["error"]
    assert good["messages"] == 401


def test_speed_is_measured(smac):
    """Whether it is fast is for the machine to tell; that both ways agree is checked in it."""
    done = smac("bench", "bags", "--megabytes", 1, "--json")
    content = json.loads(done.stdout)
    assert content["message_bytes"] == 572
    assert content["messages"] == 1748
    assert content["ratios"].keys() == {"sqlite3", "mcap"}
    assert all(found["peak_mb"] > 0 for found in content["readers"].values())
