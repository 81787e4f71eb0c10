"""Launch files declare a system's arguments and start its nodes, with a stand-in for launch."""

import importlib.util
import logging
import sys
import types
from pathlib import Path

import pytest

from smac_core.errors import InputError
from smac_ros.system import SYSTEMS

ROOT = Path(__file__).parents[2]


class Made:
    """Keeps what it was made of."""

    def __init__(self, *arguments, **keywords):
        self.arguments, self.keywords = arguments, keywords


class LaunchConfiguration(Made):
    def perform(self, context: types.SimpleNamespace) -> str:
        return context.launch_configurations[self.arguments[0]]


def context(given: dict[str, str]) -> types.SimpleNamespace:
    return types.SimpleNamespace(launch_configurations=given)


def description_of(system: str):
    path = ROOT / "launch" / f"{system}.launch.py"
    spec = importlib.util.spec_from_file_location(f"{system}_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.fixture
def stand_in(monkeypatch):
    """Modules launch and launch_ros with what the launch files use of them."""
    actions = dict.fromkeys(("DeclareLaunchArgument", "OpaqueFunction", "Shutdown"))
    contents = {
        "launch": {"LaunchDescription": Made},
        "launch.actions": {name: type(name, (Made,), {}) for name in actions},
        "launch.logging": {"get_logger": logging.getLogger},
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": type("Node", (Made,), {})},
    }
    for name, content in contents.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def test_every_system_has_a_launch_file():
    assert {path.name for path in (ROOT / "launch").glob("*.py")} == {
        f"{name}.launch.py" for name in SYSTEMS
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_a_launch_file_starts(system: str, stand_in, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "runs/now")
    (entities,) = description_of(system).arguments
    *declared, function = entities
    arguments = SYSTEMS[system].arguments
    assert [one.arguments[0] for one in declared] == [argument.name for argument in arguments]
    for one, argument in zip(declared, arguments, strict=True):
        assert one.keywords["default_value"] == argument.default
        assert one.keywords["description"] == argument.description
        assert tuple(one.keywords["choices"] or ()) == argument.choices
    given = {argument.name: argument.default for argument in arguments} | {"namespace": "left"}
    nodes = function.keywords["function"](context(given))
    specs = SYSTEMS[system].build({"namespace": "left"})
    assert len(nodes) == len(specs)
    for node, spec in zip(nodes, specs, strict=True):
        for key in ("package", "executable", "name", "namespace"):
            assert node.keywords[key] == getattr(spec, key)
        assert node.keywords["parameters"] == [spec.parameters]
        assert node.keywords["output"] == "screen"
        (shutdown,) = node.keywords["on_exit"]
        assert type(shutdown).__name__ == "Shutdown"


def test_rviz_may_be_closed(stand_in, monkeypatch, tmp_path):
    view = tmp_path / "rviz" / "sawyer.rviz"
    view.parent.mkdir()
    view.write_text("")
    monkeypatch.setattr("smac_ros.systems.sawyer._rviz_view", lambda: view)
    (entities,) = description_of("meta_test").arguments
    given = {a.name: a.default for a in SYSTEMS["meta_test"].arguments} | {"rviz": "true"}
    rviz = entities[-1].keywords["function"](context(given))[-1]
    assert rviz.keywords["package"] == rviz.keywords["executable"] == "rviz2"
    assert rviz.keywords["arguments"] == ["-d", str(view)]
    assert rviz.keywords["parameters"] == [] and rviz.keywords["on_exit"] is None


def test_wrong_arguments_are_refused_before_anything_starts(stand_in):
    (entities,) = description_of("sawyer_sim").arguments
    given = {argument.name: argument.default for argument in SYSTEMS["sawyer_sim"].arguments}
    with pytest.raises(InputError, match="iterations: found 'many'"):
        entities[-1].keywords["function"](context(given | {"iterations": "many"}))


def test_a_misspelt_argument_is_told(stand_in, caplog):
    """launch itself takes any name without a word."""
    (entities,) = description_of("sawyer_sim").arguments
    given = {argument.name: argument.default for argument in SYSTEMS["sawyer_sim"].arguments}
    given |= {"meta_test_taskz": "1", "of_another_file": "2"}
    entities[-1].keywords["function"](context(given))
    (record,) = caplog.records
    assert record.message == "unknown argument meta_test_taskz; did you mean meta_test_tasks?"


@pytest.mark.parametrize("system", SYSTEMS)
def test_with_the_real_launch(system: str):
    pytest.importorskip("launch_ros", reason="comes with a ROS 2 distribution")
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch_ros.actions import Node

    description, context = description_of(system), LaunchContext()
    nodes = []
    for entity in description.entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
        elif isinstance(entity, OpaqueFunction):
            nodes = entity.execute(context)
    assert len(nodes) == len(SYSTEMS[system].build({}))
    assert all(isinstance(node, Node) for node in nodes)
